"""The command line: misspelled keys, switches, bad data, and clients that never call ``run``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tools.bundle.errors import cause
from tools.bundle.overrides import OverrideError
from tools.data.checks import DataError

QUICK = {"epochs": 1, "epoch_length": 3, "pairs": 1, "holdout": 0, "validation_interval": 1}


def refusal(train, output: Path, *overlays: str, **overrides) -> DataError:
    """The bad input that ends a training, which has written nothing."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        train(output, *overlays, **{**QUICK, **overrides})
    found = cause(caught.value)
    assert found is not None, caught.value
    assert "\n" not in str(found)
    assert not output.exists()
    return found


@pytest.fixture(autouse=True)
def _excepthook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("epoch", "epochs"),
        ("smothness_weight", "smoothness_weight"),
        ("segmentation_learning_rat", "segmentation_learning_rate"),
        ("train#trainer#max_epoch", "train#trainer#max_epochs"),
        ("similarity#kernel", "similarity#kernel_size"),
    ],
)
def test_a_misspelled_override_names_the_nearest_key(train, tmp_path, key, nearest):
    found = refusal(train, tmp_path / "out", **{key: 1})
    assert isinstance(found, OverrideError)
    assert str(found) == f"unknown override --{key}: did you mean {nearest}?"


@pytest.mark.parametrize("switch", ["maybe", "yes", 2])
def test_a_switch_is_true_or_false(train, tmp_path, switch):
    assert "expected true or false" in str(refusal(train, tmp_path / "out", resume=switch))


def faulty(source: Path, folder: Path, fault: str) -> Path:
    """A copy of a data set with a fault."""
    shutil.copytree(source, folder)
    if fault == "truncated image":
        path = folder / "imagesTr" / "case_01.nii.gz"
        path.write_bytes(path.read_bytes()[:2000])
    elif fault == "missing label":
        (folder / "labelsTr" / "case_01.nii.gz").unlink()
    elif fault == "no dataset.json":
        (folder / "dataset.json").unlink()
    else:
        content = json.loads((folder / "dataset.json").read_text())
        if fault == "unknown label value":
            content["labels"] = {"0": "background", "2": "core"}
        elif fault == "no labels":
            content["training"] = [{"image": entry["image"]} for entry in content["training"]]
        elif fault == "two cases":
            content["training"] = content["training"][:2]
        (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("truncated image", "case_01.nii.gz: truncated"),
        ("missing label", "case_01.nii.gz: missing"),
        ("no dataset.json", "dataset.json"),
        ("unknown label value", "label value 5 not in"),
        ("no labels", "too few labelled cases: 0, at least 1"),
        ("two cases", "at least two training cases, there are 1"),  # the other one validates
    ],
)
def test_bad_data_stops_before_anything_is_written(train, small_dataset, tmp_path, fault, message):
    found = refusal(train, tmp_path / "out", dataset_dir=faulty(small_dataset, tmp_path / "data", fault))
    assert message in str(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "--epochs must be"),
        ({"epoch_length": 0}, "--epoch_length must be"),
        ({"pairs": 0}, "--pairs must be"),
        ({"seed": -1}, "--seed must be a whole number from 0 on"),
        (
            {"stages": [{"name": "joint", "registratoin": 1}]},
            "'registratoin', the nearest is 'registration'",
        ),
        ({"registration_hidden": [8, 8, 8]}, "--registration_hidden [8, 8, 8]: one number a level"),
        ({"device": "cuda:99"}, "cannot be used here"),
    ],
)
def test_options_that_cannot_be(train, small_dataset, tmp_path, options, message):
    assert message in str(refusal(train, tmp_path / "out", dataset_dir=small_dataset, **options))


def test_no_data_set(train, tmp_path):
    assert "give --dataset_dir" in str(refusal(train, tmp_path / "out", dataset_dir=""))


def test_more_labels_wanted_than_there_are(train, small_dataset, tmp_path):
    assert "label_limit is 50" in str(refusal(train, tmp_path / "out", dataset_dir=small_dataset, label_limit=50))


def test_a_training_that_is_lost_leaves_no_weights(train, small_dataset, tmp_path):
    rates = {"registration_learning_rate": 1e30, "segmentation_learning_rate": 1e30}
    with pytest.raises(Exception) as caught:  # noqa: PT011
        train(tmp_path / "out", **{**QUICK, **rates, "epoch_length": 6}, dataset_dir=small_dataset)
    assert "not finite any more: gradient, loss" in str(cause(caught.value))
    assert not list((tmp_path / "out").rglob("*.pt"))


def test_a_finished_run_is_not_overwritten(train, model):
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*") if path.is_file()}
    with pytest.raises(Exception) as caught:  # noqa: PT011
        train(model, **QUICK, spacing=3.0)
    assert "a run lies here already; --resume true continues it" in str(cause(caught.value))
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*") if path.is_file()} == before


def test_what_a_training_writes(model):
    for name in ("model.pt", "registration.pt", "plan.json", "splits.json", "checkpoints/last.pt"):
        assert (model / name).is_file(), name
    assert list((model / "tensorboard").iterdir())
    assert not list(model.rglob(".writing*"))
    assert json.loads((model / "plan.json").read_text())["extra"]["registration"]["channels"] == [8, 8, 8, 8]


@pytest.mark.parametrize("switch", ["true", "False"])
def test_switches_reach_the_network(train, small_dataset, tmp_path, switch):
    stages = [{"name": "registration", "registration": 1, "registration_from": "images"}]
    changes = {"diffeomorphic": switch, "feature_supervision": switch, "progress_bar": "false", "resume": "False"}
    train(tmp_path / "out", **{**QUICK, "dataset_dir": small_dataset, "stages": stages, **changes})
    weights = torch.load(tmp_path / "out" / "registration.pt", weights_only=True)
    assert any(key.startswith("segmentation.") for key in weights) == (switch == "true")


def test_unlabelled_images_alone(train, small_dataset, tmp_path):
    """The unsupervised experiment needs no label anywhere, validation included."""
    data = faulty(small_dataset, tmp_path / "data", "no labels")
    train(tmp_path / "out", "experiments/unsupervised", **{**QUICK, "dataset_dir": data})
    assert (tmp_path / "out" / "registration.pt").is_file()


def test_a_model_of_segmentation_alone_goes_on_learning(train, small_dataset, tmp_path):
    """As in MONAI Label, which trains by the default stages; no registration network is made up on the way."""
    once, again = ({**QUICK, "dataset_dir": small_dataset, "label_limit": limit} for limit in (1, "all"))
    train(tmp_path / "alone", "experiments/seg_only", **once)
    train(tmp_path / "further", **again, finetune="true", model_dir=tmp_path / "alone")
    before, after = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("alone", "further"))
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[key], after[key]) for key in before)
    for name in ("alone", "further"):
        assert not (tmp_path / name / "registration.pt").exists()


def test_a_model_of_registration_alone_goes_on_learning(train, small_dataset, tmp_path):
    """Few labels after a training without any: the segmentation network begins anew."""
    train(tmp_path / "alone", "experiments/unsupervised", **{**QUICK, "dataset_dir": small_dataset})
    train(tmp_path / "further", **{**QUICK, "dataset_dir": small_dataset, "epoch_length": 4}, finetune="true", model_dir=tmp_path / "alone")
    before, after = (torch.load(tmp_path / name / "registration.pt", weights_only=True) for name in ("alone", "further"))
    assert before.keys() == after.keys()
    assert not all(torch.equal(before[key], after[key]) for key in before)
    assert [(tmp_path / name / "model.pt").exists() for name in ("alone", "further")] == [False, True]


def test_fine_tuning_keeps_the_plan_and_starts_from_the_weights(train, model, ellipsoid_dataset, tmp_path):
    stages = [{"name": "joint", "registration": 2, "segmentation": 1}]
    still = {"stages": stages, "registration_learning_rate": 0.0, "segmentation_learning_rate": 0.0, "finetune": "true", "model_dir": model}
    train(tmp_path / "out", **{**QUICK, **still})
    assert (tmp_path / "out" / "plan.json").read_text() == (model / "plan.json").read_text()
    for name in ("model.pt", "registration.pt"):
        before, after = (torch.load(folder / name, weights_only=True) for folder in (model, tmp_path / "out"))
        assert all(torch.equal(before[key], after[key]) for key in before)
