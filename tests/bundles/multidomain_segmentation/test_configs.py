"""Every config parses, builds, and is what MONAI's tools expect."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow, create_workflow, load, verify_metadata, verify_net_in_out
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from multidomain_segmentation.networks import network_from_plan
from multidomain_segmentation.union import union_names
from tools.bundle.checkpoint import save_weights
from tools.bundle.overrides import check_overrides
from tools.data.domain_plan import DomainPlan, SlicePlan

REPOSITORY = Path(__file__).resolve().parents[3]
BUNDLE = REPOSITORY / "bundles" / "multidomain_segmentation"
CONFIGS = BUNDLE / "configs"
# A table of runs is no overlay: it has runs in it.
OVERLAYS = sorted(p.stem for p in (CONFIGS / "experiments").glob("*.json") if "runs" not in json.loads(p.read_text()))
CHOICES = {"individual": {"domains": "disc"}, "transfer": {"target": "disc"}}
SMALL = {"channels": [4, 8], "embedding": 4, "prior_channels": [4, 4], "device": "$torch.device('cpu')"}
LABELS = {  # of the phantoms and the hippocampus
    "ankle": {0: "background", 1: "tibia", 2: "fibula", 3: "talus"},
    "hippocampus": {0: "background", 1: "anterior", 2: "posterior"},
    "knee": {0: "background", 1: "femur", 2: "tibia", 3: "patella"},
    "shoulder": {0: "background", 1: "humerus", 2: "scapula"},
}


def files(*names: str) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in names]


@pytest.fixture(scope="module")
def metadata() -> dict:
    return json.loads((CONFIGS / "metadata.json").read_text())


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


def workflow(*names: str, kind: str | None = None, **overrides) -> ConfigWorkflow:
    made = create_workflow("ConfigWorkflow", config_file=files(*names), workflow_type=kind, logging_file=False, **overrides)
    assert isinstance(made, ConfigWorkflow)
    return made


@pytest.mark.parametrize("overlay", [None, *(name for name in OVERLAYS if name != "add_domain")])
def test_training_builds(overlay, domains, tmp_path):
    names = ["train"] + ([f"experiments/{overlay}"] if overlay else [])
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

    for name in ("individual", "transfer", "shared", "dsl", "dsbn", "contrastive", "full"):
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
        assert made.bundle_root == str(BUNDLE)
    assert isinstance(infer.evaluator, SupervisedEvaluator)
    assert len(infer.dataset) == 6


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_monai_loads_the_network(random_model, monkeypatch, tmp_path, kind):
    """``monai.bundle.load`` passes no bundle_root and never runs the workflow."""
    shutil.copytree(CONFIGS, tmp_path / "multidomain_segmentation" / "configs")
    shutil.copytree(random_model, tmp_path / "multidomain_segmentation" / "models")
    monkeypatch.chdir(tmp_path)
    network = load("multidomain_segmentation", bundle_dir=str(tmp_path), workflow_type=kind, source="github")
    expected = torch.load(random_model / "model.pt", weights_only=True)
    assert network.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_initialise_twice_touches_no_data(tmp_path):
    made = ConfigWorkflow(config_file=files("train"), workflow_type="train", logging_file=False, dataset_dir=str(tmp_path / "none"))
    made.initialize()
    made.initialize()
    assert not list(tmp_path.iterdir())


def test_metadata_fits_the_schema(metadata):
    pytest.importorskip("jsonschema")
    schema = REPOSITORY.parent / "shared" / "meta_schema_20240725.json"
    if not schema.is_file():
        pytest.skip(f"no schema at {schema}")
    verify_metadata(meta_file=files("metadata")[0], filepath=str(schema))
    assert metadata["version"] in metadata["changelog"]


def test_network_answers_as_the_metadata_says(metadata, random_model, monkeypatch, tmp_path):
    names = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert tuple(names.values()) == union_names(DomainPlan.load(random_model / "plan.json"))
    monkeypatch.chdir(tmp_path)
    arguments = {"meta_file": files("metadata")[0], "config_file": files("inference")[0], "device": "cpu"}
    verify_net_in_out("network_def", **arguments, bundle_root=str(BUNDLE), model_dir=str(random_model))
