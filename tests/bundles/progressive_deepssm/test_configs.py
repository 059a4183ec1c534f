"""Every config parses, builds, and is what MONAI's tools expect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bundle_runs import BundleContract, BundleRuns
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from progressive_deepssm.networks import network_from_plan
from progressive_deepssm.stages import Schedule
from tools.bundle.checkpoint import save_weights
from tools.bundle.overrides import check_overrides
from tools.data.plan import Plan
from tools.networks.shape_networks import ProgressiveShapeNetwork, TLShapeNetwork

BUNDLE = BundleRuns("progressive_deepssm")
CONFIGS = BUNDLE.root / "configs"
files, workflow = BUNDLE.files, BUNDLE.workflow
OVERLAYS = BUNDLE.overlays


@pytest.fixture(scope="module")
def random_model(tmp_path_factory) -> Path:
    """A model folder as a training leaves it, for the shapes the metadata names, with random weights."""
    folder = tmp_path_factory.mktemp("random")
    formats = BUNDLE.metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    shape = {"scales": [16, 32], "modes": [4, 8], "channels": [4, 4, 4, 4], "refinements": [1, 1], "hidden": 8, "points": 32}
    shape |= {"structure": None, "segmentation": True, "field": [8, 8, 8]}
    labels = {int(channel): name for channel, name in pred["channel_def"].items()}
    plan = Plan(labels=labels, size=tuple(image["spatial_shape"]), extra={"shape": shape})
    plan.save(folder / "plan.json")
    save_weights(folder / "model.pt", network_from_plan(plan))
    return folder


def test_all_overlays_are_there():
    parts = {"no_progression", "no_segmentation", "no_deep_supervision", "no_refinement", "shape_augmentation"}
    assert {"progressive", "deepssm", "tl_deepssm", *parts} <= set(OVERLAYS)


@pytest.mark.parametrize("overlay", [None, *OVERLAYS])
def test_training_builds(overlay, ellipsoid_dataset, tmp_path):
    names = ["train"] + ([f"experiments/{overlay}"] if overlay else [])
    check_overrides(files(*names), {})
    changes = {"refinements": 0 if "deepssm" in (overlay or "") else [1]}  # 64 points make one scale
    made = workflow(*names, kind="train", dataset_dir=str(ellipsoid_dataset), output_dir=str(tmp_path), **changes)
    assert isinstance(made.trainer, SupervisedTrainer)
    schedule: Schedule = made.parser.get_parsed_content("schedule")
    assert schedule.total_steps == made.parser["epochs"] * made.parser["epoch_length"]
    network = made.parser.get_parsed_content("network")
    assert isinstance(network, TLShapeNetwork if overlay == "tl_deepssm" else ProgressiveShapeNetwork)
    assert network.scales == (64,)


def test_images_get_equal_steps_in_all_experiments():
    plain = json.loads((CONFIGS / "train.json").read_text())
    for overlay in OVERLAYS:
        config = {**plain, **json.loads((CONFIGS / "experiments" / f"{overlay}.json").read_text())}
        total = sum(stage.get("share", 1.0) for stage in config["stages"])
        images = sum(stage.get("share", 1.0) for stage in config["stages"] if stage.get("learn") != "autoencoder")
        steps = config["epochs"] * config["epoch_length"] * images / total
        assert steps == pytest.approx(plain["epochs"] * plain["epoch_length"]), overlay


def test_progressive_is_what_train_says():
    plain, overlay = (json.loads(Path(file).read_text()) for file in files("train", "experiments/progressive"))
    assert {key: plain[key] for key in overlay if key != "_desc_"} == {key: value for key, value in overlay.items() if key != "_desc_"}


def test_multi_gpu_training_keys():
    check_overrides(files("train", "multi_gpu_train"), {})


def test_workflow_types_have_their_properties(ellipsoid_dataset, random_model, tmp_path):
    common = {"dataset_dir": str(ellipsoid_dataset), "output_dir": str(tmp_path), "model_dir": str(random_model)}
    for name, kind in (("train", "train"), ("inference", "infer")):
        changes = {"refinements": 1} if name == "train" else {}
        made = workflow(name, kind=kind, meta_file=files("metadata")[0], **common, **changes)
        assert not made.check_properties()
        assert made.bundle_root == str(BUNDLE.root)
        if name == "inference":
            assert isinstance(made.evaluator, SupervisedEvaluator)


def test_points_come_from_the_same_weights(random_model):
    network = network_from_plan(Plan.load(random_model / "plan.json"))
    network.load_state_dict(torch.load(random_model / "model.pt", weights_only=True))
    assert network.shape(torch.rand(1, 1, 48, 64, 48)).points[-1].shape == (1, 32, 3)


class TestContract(BundleContract):
    """What every bundle promises."""
