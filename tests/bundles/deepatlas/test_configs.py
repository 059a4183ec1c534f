"""Every config parses, builds, and is what MONAI's tools expect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundle_runs import BundleContract, BundleRuns
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from deepatlas.networks import registration_from_plan, segmentation_from_plan
from deepatlas.stages import Schedule
from tools.bundle.checkpoint import load_weights, save_weights
from tools.bundle.overrides import check_overrides
from tools.data.plan import Plan

BUNDLE = BundleRuns("deepatlas")
CONFIGS = BUNDLE.root / "configs"
files, workflow = BUNDLE.files, BUNDLE.workflow
OVERLAYS = BUNDLE.overlays


@pytest.fixture(scope="module")
def random_model(tmp_path_factory) -> Path:
    """A model folder as a training leaves it, for the shapes the metadata names, with random weights."""
    folder = tmp_path_factory.mktemp("random")
    formats = BUNDLE.metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    labels = {int(channel): name for channel, name in pred["channel_def"].items()}
    plan = Plan(labels=labels, size=tuple(image["spatial_shape"]))
    plan.save(folder / "plan.json")
    save_weights(folder / "model.pt", segmentation_from_plan(plan))
    save_weights(folder / "registration.pt", registration_from_plan(plan))
    return folder


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_training_builds(overlay, small_dataset, tmp_path):
    names = ["train"] + ([f"experiments/{overlay}"] if overlay else [])
    check_overrides(files(*names), {})
    changes = {"label_limit": 2, "holdout": 0, "folds": 2}
    made = workflow(*names, kind="train", dataset_dir=str(small_dataset), output_dir=str(tmp_path), **changes)
    assert isinstance(made.trainer, SupervisedTrainer)
    schedule: Schedule = made.parser.get_parsed_content("schedule")
    assert schedule.total_steps == made.parser["epochs"] * made.parser["epoch_length"]
    assert schedule.count("registration") + schedule.count("segmentation") == schedule.total_steps
    spacing = made.parser.get_parsed_content("plan").spacing
    for part in ("augmentation", "registration_augmentation"):
        assert tuple(made.parser.get_parsed_content(part).spacing) == spacing


@pytest.mark.parametrize(
    ("changes", "rate"), [({}, 0.001), ({"backbone": "swin"}, 0.0005), ({"backbone": "swin", "registration_learning_rate": 0.002}, 0.002)]
)
def test_learning_rate_of_the_registration(changes, rate, small_dataset, tmp_path):
    made = workflow("train", kind="train", dataset_dir=str(small_dataset), output_dir=str(tmp_path), folds=2, **changes)
    assert made.trainer  # the property that builds the rest
    assert made.parser.get_parsed_content("registration_optimizer").param_groups[0]["lr"] == rate


def test_multi_gpu_training_keys(small_dataset):
    check_overrides(files("train", "multi_gpu_train"), {})


def test_workflow_types_have_their_properties(small_dataset, random_model, tmp_path):
    common = {
        "dataset_dir": str(small_dataset),
        "output_dir": str(tmp_path),
        "model_dir": str(random_model),
    }
    for name, kind in (("train", "train"), ("inference", "infer")):
        made = workflow(name, kind=kind, meta_file=files("metadata")[0], **common)
        missing = made.check_properties()
        assert not missing
        assert made.bundle_root == str(BUNDLE.root)


def test_inference_builds(small_dataset, random_model, tmp_path):
    made = workflow("inference", kind="infer", dataset_dir=str(small_dataset), output_dir=str(tmp_path), model_dir=str(random_model))
    assert isinstance(made.evaluator, SupervisedEvaluator)
    assert len(made.dataset) == 6


def test_shipped_weights_load():
    plan = Plan.load(BUNDLE.root / "models" / "plan.json")
    load_weights(BUNDLE.root / "models" / "model.pt", segmentation_from_plan(plan))
    load_weights(BUNDLE.root / "models" / "registration.pt", registration_from_plan(plan))
    names = json.loads((CONFIGS / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(plan.labels) == [int(channel) for channel in names]
    split = json.loads((BUNDLE.root / "models" / "splits.json").read_text())
    assert not set(split["train"]) & set(split["report"])


class TestContract(BundleContract):
    """What every bundle promises."""
