"""Structures that the labels divide by a plane: from a data set to answers that keep to it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from deepatlas.data import DeepAtlasRunData
from deepatlas.networks import segmentation_from_plan
from tools.data.checks import DataError
from tools.data.geometry import load_volume
from tools.data.plan import Plan
from tools.networks.divided import DividedSegmentation
from tools.networks.segmentation import PyramidSegmentation

LEFT_AND_RIGHT = {"axis": 0, "lower": 1, "upper": 2}


def plan_with(**division: int) -> Plan:
    sizes = {"channels": [4, 6], "fine_channels": [4]}
    return Plan({0: "background", 1: "left", 4: "right"}, size=(16, 16, 16), extra={"segmentation": sizes, "divisions": [division]})


def test_the_labels_that_are_learnt_from_say_what_is_divided(tiny_dataset, tmp_path, caplog):
    caplog.set_level("INFO")
    data = DeepAtlasRunData(tiny_dataset, tmp_path, split={"fold": "all", "label_limit": 1}, extra={"segmentation": {"channels": [4]}})
    assert data.plan.extra == {"segmentation": {"channels": [4]}, "divisions": [LEFT_AND_RIGHT]}
    assert "left and right are divided by a plane across axis 0 (RAS) in the labels" in caplog.text


def test_typical_cases_are_chosen_before_their_labels_are_looked_at(tiny_dataset, tmp_path):
    split = {"fold": "all", "label_limit": 1, "label_choice": "typical"}
    assert DeepAtlasRunData(tiny_dataset, tmp_path, split=split).plan.extra == {"divisions": [LEFT_AND_RIGHT]}


@pytest.mark.parametrize("divisions", [False, "false"])
def test_they_are_not_looked_for_where_they_are_not_wanted(tiny_dataset, tmp_path, divisions):
    assert DeepAtlasRunData(tiny_dataset, tmp_path, divisions=divisions).plan.extra == {}


def test_a_plan_without_divisions_is_as_it_was(ellipsoid_dataset, tmp_path):
    assert DeepAtlasRunData(ellipsoid_dataset, tmp_path).plan.extra == {}


def test_fine_tuning_keeps_to_the_models_divisions(ellipsoid_dataset, tmp_path):
    plan = Plan({0: "background", 2: "core", 5: "shell"}, extra={"divisions": [{"axis": 2, "lower": 2, "upper": 5}]})
    plan.save(tmp_path / "models" / "plan.json")
    assert DeepAtlasRunData(ellipsoid_dataset, tmp_path, tmp_path / "models", use_model_plan=True).plan == plan


def test_a_model_goes_on_without_its_divisions_where_they_are_not_wanted(ellipsoid_dataset, tmp_path):
    plan = Plan({0: "background", 2: "core", 5: "shell"}, extra={"divisions": [{"axis": 2, "lower": 2, "upper": 5}]})
    plan.save(tmp_path / "models" / "plan.json")
    data = DeepAtlasRunData(ellipsoid_dataset, tmp_path, tmp_path / "models", use_model_plan=True, divisions=False)
    assert data.plan == replace(plan, extra={})


def test_channels_stand_for_the_plans_label_values():
    network = segmentation_from_plan(plan_with(axis=1, lower=4, upper=1))
    assert isinstance(network, DividedSegmentation)
    assert network.divisions == ((1, 2, 1),)
    assert isinstance(network.network, PyramidSegmentation)
    assert network.features is network.network.features


@pytest.mark.parametrize(
    "division",
    [
        {"axis": 0, "lower": 0, "upper": 1},
        {"axis": 0, "lower": 1, "upper": 3},
        {"axis": 3, "lower": 1, "upper": 4},
        {"axis": 0, "lower": 1},
        {"axis": 0, "lower": 1, "higher": 4},
    ],
)
def test_a_division_of_other_structures_is_refused(division):
    with pytest.raises(DataError, match=r"plan: .* divides no two structures of \[0, 1, 4\]"):
        segmentation_from_plan(plan_with(**division))


@pytest.fixture
def trained(bundle_call, tiny_dataset, tmp_path, tiny):
    """A tiny model of the method for few labels, whose teacher answers with planes and whose networks share features."""
    stages = [
        {"name": "labels", "share": 10, "segmentation": 1, "segmentation_from": "labels"},
        {"name": "answers", "share": 1, "segmentation": 1, "segmentation_from": "answers"},
        {"name": "registration", "share": 1, "registration": 1, "share_features": True, "registration_from": "segmentations"},
    ]
    options = {"epochs": 6, "epoch_length": 10, "teacher_decay": 0.9, "hard_answers": True, "fold": "all", "label_limit": 2}
    options["segmentation_learning_rate"] = 0.01
    output = tmp_path / "model"
    overrides = {"dataset_dir": tiny_dataset, "output_dir": output, **tiny, "pairs": 1, "stages": stages, **options}
    bundle_call("training", "train", **overrides)
    return output


def test_answers_of_a_trained_model_keep_to_a_plane(bundle_call, trained, tiny_dataset, tmp_path, tiny):
    assert json.loads((trained / "plan.json").read_text())["extra"]["divisions"] == [LEFT_AND_RIGHT]
    bundle_call("run", "inference", dataset_dir=tiny_dataset, output_dir=tmp_path / "result", model_dir=trained, device="cpu")
    for case in range(6):
        answer, _ = load_volume(tmp_path / "result" / f"case_{case:02d}_seg.nii.gz")
        left, right = (np.nonzero((answer == value).any(axis=(1, 2)))[0] for value in (1, 2))
        assert left.max() < right.min()
