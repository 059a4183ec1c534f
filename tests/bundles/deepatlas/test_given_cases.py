"""Training on cases that a program hands over, in the way of MONAI Label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tools.data.checks import DataError
from tools.data.decathlon import read_dataset
from tools.data.files import write_nifti
from tools.data.geometry import load_volume


@pytest.fixture
def given(dataset) -> list[dict[str, str]]:
    """Three cases as MONAI Label lists them."""
    return [{"image": str(case.image), "label": str(case.label)} for case in read_dataset(dataset).cases[:3]]


@pytest.fixture
def learn(bundle, bundle_call, model, tiny, tmp_path):
    """A function that trains a copy of the model for an epoch on given cases, and returns its folder."""

    def learn(cases: list[dict[str, str]], **options) -> Path:
        root = tmp_path / "deepatlas"
        shutil.copytree(bundle.root / "configs", root / "configs")
        shutil.copytree(model, root / "models", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
        # what MONAI Label sets: its run_id is empty, and it puts a handler of its own in front
        handlers = [{"_target_": "CheckpointLoader", "load_path": str(root / "models" / "model.pt"), "load_dict": {"model": "$@network"}}]
        handlers += json.loads(Path(bundle.files("train")[0]).read_text())["train"]["handlers"]
        label = {
            "bundle_root": root,
            "device": "cpu",
            "train#trainer#max_epochs": 1,
            "train#dataset#data": cases,
            "train#handlers": handlers,
        }
        bundle_call("", "train", **{**tiny, "epoch_length": 3, **label, **options})
        return root / "models"

    return learn


def test_the_model_itself_learns_on(learn, given, model, caplog):
    with caplog.at_level("INFO"):
        learnt = learn(given, validation_interval=1, **{"validate#dataset#data": given[:1]})
    assert sum("epoch 1/1" in message for message in caplog.messages) == 1
    assert "Key metric" in caplog.text
    for name in ("model.pt", "registration.pt"):
        before, after = (torch.load(folder / name, weights_only=True) for folder in (model, learnt))
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[key], after[key]) for key in before)
        # a few steps away from where the model was
        assert max(float((before[key] - after[key]).abs().max()) for key in before) < 0.1
    assert not (learnt / "checkpoints").exists()


def test_a_label_that_does_not_fit_stops_it(learn, given, tmp_path):
    volume, affine = load_volume(given[1]["label"])
    write_nifti(tmp_path / "other.nii.gz", volume[:-1], affine)
    given[1]["label"] = str(tmp_path / "other.nii.gz")
    with pytest.raises(RuntimeError) as raised:
        learn(given)
    assert isinstance(raised.value.__cause__, DataError)
    assert "other.nii.gz" in str(raised.value.__cause__)
