"""A sound bundle has no fault; each planted fault is found by its code, and by no other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tools.data.checks import DataError
from tools.release.faults import CODES, Fault
from tools.release.verify import verify


@pytest.fixture(scope="module")
def copy(bundle, tmp_path_factory) -> Path:
    """A copy of the sound bundle that a test may change; :func:`mended` brings back what was changed."""
    folder = tmp_path_factory.mktemp("verify") / "deepatlas"
    shutil.copytree(bundle, folder)
    return folder


@pytest.fixture
def mended(copy, bundle):
    """The copy; afterwards it is as it was."""
    yield copy
    for path in copy.rglob("*"):
        if path.is_file() and not (bundle / path.relative_to(copy)).is_file():
            path.unlink()
    shutil.copytree(bundle, copy, dirs_exist_ok=True)


def test_a_sound_bundle(bundle):
    assert verify(bundle) == []


def test_a_sound_archive(archive):
    assert verify(archive) == []


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    """A change of a file's text."""

    def change(root: Path) -> None:
        content = (root / name).read_text()
        assert old in content
        (root / name).write_text(content.replace(old, new))

    return change


def metadata(*keys: str, value: object = None) -> Callable[[Path], None]:
    """A change of the metadata's entry at the keys; None deletes it."""

    def change(root: Path) -> None:
        path = root / "configs" / "metadata.json"
        content = json.loads(path.read_text())
        node = content
        for key in keys[:-1]:
            node = node[key]
        if value is None:
            del node[keys[-1]]
        else:
            node[keys[-1]] = value
        path.write_text(json.dumps(content))

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def large(root: Path) -> None:
    with open(root / "docs" / "large.png", "wb") as stream:
        stream.truncate(26 * 2**20)


def other_weights(root: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, root / "models" / "model.pt")
    evaluated(root)


def further_weights(root: Path) -> None:
    (root / "models" / "more").mkdir()
    torch.save({"weight": torch.zeros(1)}, root / "models" / "more" / "registration.pt")


def pickled(root: Path) -> None:
    torch.save({"path": os.PathLike}, root / "models" / "model.pt")
    evaluated(root)


def evaluated(root: Path) -> None:
    """Note the weights that lie there now as those that were evaluated: one fault at a time."""
    from tools.release.hashes import sha256_of

    path = root / "models" / "evaluation.json"
    content = json.loads(path.read_text())
    content["weights"] = {weights.name: sha256_of(weights) for weights in (root / "models").glob("*.pt")}
    path.write_text(json.dumps(content))


def lazy_import(root: Path) -> None:
    with open(root / "deepatlas" / "data.py", "a") as stream:
        stream.write("\n\ndef draw():\n    import matplotlib.pyplot\n")


OUTPUT = ("network_data_format", "outputs", "pred")
INPUT = ("network_data_format", "inputs", "image")
INFERENCE = "configs/inference.json"

FAULTS = {
    "no licence": (remove("LICENSE"), "file-missing", "LICENSE: missing"),
    "no inference": (remove(INFERENCE), "file-missing", "configs/inference.json: missing"),
    "no data licence": (remove("docs/data_license.txt"), "file-missing", "docs/data_license.txt: missing"),
    "a large file": (large, "file-size", "docs/large.png: 26 MiB, at most 25"),
    "no JSON": (text(INFERENCE, '"imports"', "imports"), "json", "configs/inference.json"),
    "no task": (metadata("task"), "schema", "'task' is a required property"),
    "a type": (metadata(*OUTPUT, "num_channels", value="3"), "schema", "'3' is not of type 'integer'"),
    "a tensor's key": (metadata(*INPUT, "dtype"), "schema", "'dtype' is a required property"),
    "a shape": (metadata(*INPUT, "spatial_shape", value=["m", 32, 32]), "schema", "'m' is no number, '*', or expression of n and p"),
    "a version": (metadata("version", value="0.1"), "version", "version '0.1'"),
    "a changelog": (metadata("changelog", value={"0.0.9": "first"}), "changelog", "does not hold version 0.1.0"),
    "a logging class": (text("configs/logging.conf", "class=StreamHandler", "class=rich.Handler"), "logging", "class rich.Handler"),
    "logging arguments": (text("configs/logging.conf", "(sys.stdout,)", "(open('x'),)"), "logging", "args may hold literals"),
    "weights in a folder": (further_weights, "metrics", "more/registration.pt was not evaluated"),
    "a stray file": (lambda root: (root / "notes.txt").write_text("x"), "packing", "notes.txt: no part of a bundle"),
    "a path out of it": (text(INFERENCE, "'/output'", "'/../output'"), "packing", "leads out of the bundle"),
    "a page": (
        text("docs/README.md", "## Run it", "## Run it\n\nIn `cd bundles/deepatlas`."),
        "page",
        "README.md:17: names bundles/deepatlas in an archive",
    ),
    "no inferer": (text(INFERENCE, '"inferer": {"_target_"', '"inferrer": {"_target_"'), "property", "no inferer, which MONAI takes as"),
    "no trainer": (
        text("configs/train.json", '"trainer": {', '"coach": {'),
        "property",
        "no train#trainer, which MONAI takes as the trainer",
    ),
    "an expression": (text(INFERENCE, "$@evaluator.run()", "$@evaluator.run("), "expression", "$@evaluator.run( is no Python"),
    "a target of MONAI's": (text(INFERENCE, '"SupervisedEvaluator"', '"SupervisedEvaluater"'), "target", "SupervisedEvaluater: nothing of"),
    "a target of its own": (
        text(INFERENCE, "data.images_to_segment", "data.images"),
        "target",
        "deepatlas.data.images: nothing of this name",
    ),
    "a target of PyTorch's": (text("configs/train.json", "torch.optim.AdamW", "torch.optim.AdamV"), "target", "torch.optim.AdamV: nothing"),
    "a requirement": (metadata("required_packages_version", "scipy"), "requirement", "lacks scipy, used by"),
    "a lazy import": (lazy_import, "requirement", "lacks matplotlib, used by deepatlas.data"),
    "behind MONAI": (metadata("required_packages_version", "pytorch-ignite"), "requirement", "lacks pytorch-ignite"),
    "no weights": (remove("models/model.pt"), "weights-missing", "models/model.pt: missing"),
    "unsafe weights": (pickled, "weights-unsafe", "models/model.pt: does not load with weights_only=True"),
    "half weights": (lambda root: os.truncate(root / "models/registration.pt", 99), "weights-unsafe", "models/registration.pt: does not"),
    "other weights": (other_weights, "weights-mismatch", "not the weights of network_def"),
    "no plan": (remove("models/plan.json"), "network", "plan.json: missing"),
    "a size": (metadata(*INPUT, "spatial_shape", value=["16*n", 32, "16*n+1"]), "network", "network_def fails on image (2, 1, 32, 32, 65)"),
    "channels": (metadata(*OUTPUT, "num_channels", value=2), "shape", "pred is (2, 3, 32, 32, 32) on image (2, 1, 32, 32, 32)"),
    "an output's size": (metadata(*OUTPUT, "spatial_shape", value=[32, 32, 16]), "shape", "the metadata say (2, 3, 32, 32, 16)"),
    "an output's type": (metadata(*OUTPUT, "dtype", value="float64"), "dtype", "pred is float32; the metadata say float64"),
    "no evaluation": (remove("models/evaluation.json"), "metrics-missing", "models/evaluation.json: missing"),
    "no figures": (metadata("eval_metrics"), "metrics-missing", "no eval_metrics"),
    "a figure": (metadata("eval_metrics", "segmentation_dice", value=0.8806), "metrics", "is 0.8806 in the metadata and 0.88046 in"),
    "a further figure": (metadata("eval_metrics", "speed", value=1.0), "metrics", "speed is in no evaluation"),
    "newer weights": (lambda root: _resave(root / "models/model.pt"), "metrics", "model.pt is not the file that was evaluated"),
}


def _resave(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    torch.save({key: value * 1.01 if value.is_floating_point() else value for key, value in state.items()}, path)


# What follows from a fault by itself: weights that are gone or broken are not those that were evaluated either.
FOLLOWING = {
    "weights-missing": {"metrics"},
    "weights-unsafe": {"metrics"},
    "target": {"packing", "network"},
    "expression": {"packing"},
    "version": {"changelog"},
    "json": {"property", "network"},
    "property": {"network"},
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults(mended, name):
    plant, code, message = FAULTS[name]
    plant(mended)
    faults = verify(mended)
    matching = [fault for fault in faults if fault.code == code and message in str(fault)]
    assert len(matching) == 1, "\n".join(map(str, faults))
    assert {fault.code for fault in faults} - {code} <= FOLLOWING.get(code, set()), "\n".join(map(str, faults))
    assert all(fault.code in CODES and "\n" not in str(fault) for fault in faults)


def test_a_name_with_v(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "deep_v2")
    assert "name" in {fault.code for fault in verify(tmp_path / "deep_v2")}


def test_a_damaged_archive(archive, tmp_path):
    content = archive.read_bytes()
    (tmp_path / "half.zip").write_bytes(content[: len(content) // 2])
    faults = verify(tmp_path / "half.zip")
    assert [fault.code for fault in faults] == ["archive"]
    assert "truncated" in faults[0].message


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match="no folder and no archive"):
        verify(tmp_path / "missing.zip")


def test_modules_of_other_bundles_stay(bundle, tmp_path):
    import sys

    before, path = {name: module for name, module in sys.modules.items() if name.startswith("deepatlas")}, list(sys.path)
    verify(bundle)
    assert {name: module for name, module in sys.modules.items() if name.startswith("deepatlas")} == before
    assert sys.path == path


def test_a_fault_is_one_line():
    assert str(Fault("shape", "here", "a\n  b")) == "shape: here: a b"
