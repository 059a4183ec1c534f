from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle import run

from tools.bundle.errors import cause
from tools.bundle.overrides import OverrideError, check_overrides, to_bool
from tools.data.checks import DataError

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = {
    "imports": ["$from tools.bundle.overrides import check_overrides"],
    "bundle_root": ".",
    "dataset_dir": "data",
    "learning_rate": 1e-4,
    "fold": 0,
    "cache_rate": 1.0,
    "network_def": {"_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2},
    "network": "@network_def",
    "free": {"_target_": "builtins.dict", "known_name": 1},
    "train": {"trainer": {"max_epochs": 3, "nothing": None}, "handlers": [{"_target_": "StatsHandler", "iteration_log": True}, "@fold"]},
    "run": ["$check_overrides()", "$print('trained with', @learning_rate)"],
    "training": "%run",
}


@pytest.fixture
def bundle(tmp_path):
    configs = tmp_path / "bundle" / "configs"
    configs.mkdir(parents=True)
    (configs / "train.json").write_text(json.dumps(CONFIG))
    (configs / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    return configs.parent


def write(bundle, name, content):
    path = bundle / "configs" / name
    path.write_text(json.dumps(content))
    return str(path)


def config(bundle):
    return str(bundle / "configs" / "train.json")


@pytest.mark.parametrize(
    "key",
    [
        "learning_rate",
        "bundle_root",
        "logging_file",
        "run_id",
        "train#trainer#max_epochs",
        "train::trainer::max_epochs",
        "train#handlers",
        "train#handlers#0#iteration_log",
        "train#handlers#0#name",
        "network_def#strides",
        "network_def#_disabled_",
        "_meta_#version",
        "free#other",
    ],
)
def test_known_keys(bundle, key):
    check_overrides(config(bundle), {key: 1})


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("lr", "did you mean learning_rate?"),
        ("learning_rat", "did you mean learning_rate?"),
        ("max_epoch", "did you mean train#trainer#max_epochs?"),
        ("logging_fil", "did you mean logging_file?"),
        ("train#trainer#max_epoch", "did you mean train#trainer#max_epochs?"),
        ("trian#trainer#max_epochs", "did you mean train?"),
        ("network_def#stride", "did you mean network_def#strides?"),
        ("network_def#_target", "did you mean network_def#_target_?"),
        ("free#knwon_name", "did you mean free#known_name?"),
        ("train#handlers#2", "train#handlers is a list of 2 entries, 0 to 1"),
        ("train#handlers#x", "train#handlers is a list"),
        ("network#strides", "network is '@network_def' and has no parts, override network_def instead"),
        ("fold#x", "fold is 0 and has no parts"),
        ("_meta_#versio", "did you mean _meta_#version?"),
        ("_private", "did you mean"),
    ],
)
def test_unknown_key_names_the_nearest(bundle, key, nearest):
    with pytest.raises(OverrideError) as caught:
        check_overrides(config(bundle), {key: 1})
    message = str(caught.value)
    assert message.startswith(f"unknown override --{key}: ")
    assert nearest in message
    assert "\n" not in message


def test_an_override_may_make_room_for_the_next(bundle):
    check_overrides(config(bundle), {"fold": {"x": 1}, "fold#x": 2})


def test_overlay_of_known_keys(bundle):
    overlay = write(bundle, "overlay.json", {"_desc_": "why", "learning_rate": 1, "train#trainer#max_epochs": 2, "+train": {"x": 1}})
    check_overrides([config(bundle), overlay], {})


@pytest.mark.parametrize(("key", "nearest"), [("learning_rte", "learning_rate"), ("train#trainer#epochs", "train#trainer#max_epochs")])
def test_overlay_with_unknown_key(bundle, key, nearest):
    overlay = write(bundle, "overlay.json", {key: 1})
    with pytest.raises(OverrideError, match=rf"overlay\.json: unknown key {key}: did you mean {nearest}\?"):
        check_overrides([config(bundle), overlay], {})


@pytest.mark.parametrize("own", ["run", "evaluating"])
def test_second_workflow_may_define_entries(bundle, own):
    second = write(bundle, "evaluate.json", {own: [], "metrics_file": "x"})
    check_overrides([config(bundle), second], {"metrics_file": "y"}, run_id="evaluating")


def test_a_file_without_the_one_that_it_refers_to(bundle):
    second = write(bundle, "evaluate.json", {"imports": [], "evaluating": ["$print(@fold, @train#trainer)"], "fold": 1})
    with pytest.raises(DataError, match=r"evaluate\.json: @train is in none of the config files; does this one belong behind another"):
        check_overrides(second, {"fold": 1, "learning_rate": 1}, run_id="evaluating")


def test_run_finds_the_call(bundle, capsys):
    run("training", config_file=config(bundle), learning_rate=0.5)
    assert "trained with 0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        *(("cache_rate", value, "from 0 to 1") for value in (40, -0.1, "all", True, float("nan"))),
        *(("learning_rate", value, "from 0 on") for value in (-0.1, "fast")),
    ],
)
def test_a_share_or_rate_that_is_none(bundle, name, value, wanted, capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(RuntimeError) as caught:
        run("training", config_file=config(bundle), **{name: value})
    assert str(cause(caught.value)) == f"--{name} must be a number {wanted}, not {value!r}"
    assert "trained" not in capsys.readouterr().out


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_a_share(bundle, value, capsys):
    run("training", config_file=config(bundle), cache_rate=value)
    assert "trained" in capsys.readouterr().out


@pytest.mark.parametrize("by", ["keyword", "args file"])
def test_run_refuses(bundle, by, capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    arguments = {"config_file": config(bundle), "learning_rat": 0.5}
    if by == "args file":
        arguments = {"args_file": write(bundle, "args.json", arguments)}
    with pytest.raises(RuntimeError) as caught:
        run("training", **arguments)
    assert str(cause(caught.value)) == "unknown override --learning_rat: did you mean learning_rate?"
    assert "trained" not in capsys.readouterr().out


def test_command_line_prints_one_line(bundle):
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "training", "--config_file", config(bundle)]
    result = subprocess.run([*command, "--train#trainer#max_epoch", "3"], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "error: unknown override --train#trainer#max_epoch: did you mean train#trainer#max_epochs?"
    assert "Traceback" not in result.stderr


def test_other_programs_are_left_alone():
    check_overrides()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), ("true", True), ("True", True), ("false", False), ("False", False), (1, True), ("0", False)],
)
def test_to_bool(value, expected):
    assert to_bool(value) is expected


@pytest.mark.parametrize("value", ["yes", "", None, 2, 1.0, [True]])
def test_to_bool_invalid(value):
    with pytest.raises(ValueError, match="expected true or false"):
        to_bool(value)
