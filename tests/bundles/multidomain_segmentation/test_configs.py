"""Every config parses, builds, and is what MONAI's tools expect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from bundle_runs import BundleContract, BundleRuns
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from multidomain_segmentation.networks import network_from_plan
from multidomain_segmentation.union import union_names
from tools.bundle.checkpoint import save_weights
from tools.bundle.overrides import check_overrides
from tools.data.domain_plan import DomainPlan, SlicePlan

BUNDLE = BundleRuns("multidomain_segmentation")
CONFIGS = BUNDLE.root / "configs"
files, workflow = BUNDLE.files, BUNDLE.workflow
OVERLAYS = BUNDLE.overlays
CHOICES = {"individual": {"domains": "disc"}, "transfer": {"target": "disc"}, "unlabelled_transfer": {"target": "disc"}}
BELOW = {"unlabelled_transfer": ["experiments/transfer"]}
SMALL = {"channels": [4, 8], "embedding": 4, "prior_channels": [4, 4], "device": "cpu"}
LABELS = {  # of the phantoms and the hippocampus
    "ankle": {0: "background", 1: "tibia", 2: "fibula", 3: "talus"},
    "hippocampus": {0: "background", 1: "anterior", 2: "posterior"},
    "knee": {0: "background", 1: "femur", 2: "tibia", 3: "patella"},
    "shoulder": {0: "background", 1: "humerus", 2: "scapula"},
}


@pytest.fixture(scope="module")
def random_model(tmp_path_factory) -> Path:
    """A model folder as a training leaves it, for the domains the metadata names, with random weights."""
    folder = tmp_path_factory.mktemp("random")
    plan = DomainPlan(
        domains={name: SlicePlan(labels=labels) for name, labels in LABELS.items()}, extra={"network": {"channels": [4, 8], "embedding": 4}}
    )
    plan.save(folder / "plan.json")
    save_weights(folder / "model.pt", network_from_plan(plan))
    return folder


@pytest.mark.parametrize("overlay", [None, *(name for name in OVERLAYS if name != "add_domain")])
def test_training_builds(overlay, domains, tmp_path):
    names = ["train", *BELOW.get(overlay, []), *([f"experiments/{overlay}"] if overlay else [])]
    check_overrides(files(*names), {})
    changes = {"label_limit": 2, "holdout": 0, "folds": 2, **SMALL, **CHOICES.get(overlay, {})}
    made = workflow(*names, kind="train", dataset_dir=str(domains), output_dir=str(tmp_path), **changes)
    assert isinstance(made.trainer, SupervisedTrainer)
    schedule, parser = made.parser.get_parsed_content("schedule"), made.parser
    assert schedule.total_steps == parser["epochs"] * parser["epoch_length"]
    assert (schedule.count("prior") > 0) == (parser["prior_weight"] > 0)


def test_schemes_learn_for_as_many_steps():
    """Those of the segmentation network on a domain, in every scheme that is compared."""
    from multidomain_segmentation.stages import Schedule

    for name in ("individual", "transfer", "shared", "dsl", "dsbn", "contrastive", "prior", "full"):
        config = {**json.loads((CONFIGS / "train.json").read_text()), **json.loads((CONFIGS / "experiments" / f"{name}.json").read_text())}
        schedule = Schedule(config["stages"], config["epochs"] * config["epoch_length"], target="a", prior=config["prior_weight"] > 0)
        steps = [schedule(k).stage for k in range(schedule.total_steps)]
        assert sum(stage.network == "network" and "a" in schedule.domains(stage, ("a", "b")) for stage in steps) == 5000, name


def test_full_is_the_default():
    full, default = (json.loads(Path(path).read_text()) for path in files("experiments/full", "train"))
    assert all(default[key] == value for key, value in full.items() if key != "_desc_")


@pytest.mark.parametrize("names", [["train", "multi_gpu_train"], ["train", "experiments/add_domain"], ["train", "evaluate"]])
def test_overlay_keys(names):
    check_overrides(files(*names), {}, run_id="evaluating")


def test_workflow_types_have_their_properties(domains, random_model, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copytree(domains / "disc", tmp_path / "in" / "knee")
    common = {"output_dir": str(tmp_path), "model_dir": str(random_model)}
    train = workflow("train", kind="train", meta_file=files("metadata")[0], dataset_dir=str(domains), **common, **SMALL)
    images = str(tmp_path / "in" / "knee" / "imagesTr")
    infer = workflow("inference", kind="infer", meta_file=files("metadata")[0], dataset_dir=images, domain="knee", **common)
    for made in (train, infer):
        assert not made.check_properties()
        assert made.bundle_root == str(BUNDLE.root)
    assert isinstance(infer.evaluator, SupervisedEvaluator)
    assert len(infer.dataset) == 6


def test_names_of_the_metadata_are_those_of_all_domains(random_model):
    names = BUNDLE.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert tuple(names.values()) == union_names(DomainPlan.load(random_model / "plan.json"))


class TestContract(BundleContract):
    """What every bundle promises."""
