from __future__ import annotations

import json

import pytest
from monai.bundle import ConfigWorkflow, create_workflow

from tools.bundle.locate import bundle_root, workflow

CONFIG = {"imports": ["$from tools.bundle.locate import bundle_root"], "bundle_root": "$bundle_root()", "run": ["$@bundle_root"]}


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "some bundle"
    (folder / "configs" / "experiments").mkdir(parents=True)
    for path in ("configs/train.json", "configs/experiments/overlay.json"):
        (folder / path).write_text(json.dumps(CONFIG))
    return folder


@pytest.mark.parametrize("path", ["configs/train.json", "configs/experiments/overlay.json"])
def test_from_anywhere(bundle, path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    created = create_workflow(config_file=str(bundle / path))
    assert created.run() == [str(bundle)]


def test_relative_path_of_a_workflow_built_by_hand(bundle, monkeypatch):
    monkeypatch.chdir(bundle)
    built = ConfigWorkflow(config_file="configs/train.json")
    built.initialize()
    assert built.run() == [str(bundle)]


def test_command_without_a_workflow(bundle):
    scripts = {"__name__": "monai.bundle.scripts", "bundle_root": bundle_root}
    exec("def verify(config_file_):\n    return bundle_root()", scripts)
    assert scripts["verify"](str(bundle / "configs" / "train.json")) == str(bundle)


def test_nothing_on_the_stack():
    assert workflow() is None
    with pytest.raises(RuntimeError, match="give bundle_root"):
        bundle_root()
