"""Every config parses, builds, and is what MONAI's tools expect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow, create_workflow, verify_metadata, verify_net_in_out
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from progressive_deepssm.networks import network_from_plan
from progressive_deepssm.stages import Schedule
from tools.bundle.checkpoint import save_weights
from tools.bundle.overrides import check_overrides
from tools.data.plan import Plan
from tools.networks.shape_networks import ProgressiveShapeNetwork, TLShapeNetwork

REPOSITORY = Path(__file__).resolve().parents[3]
BUNDLE = REPOSITORY / "bundles" / "progressive_deepssm"
CONFIGS = BUNDLE / "configs"
OVERLAYS = sorted(p.stem for p in (CONFIGS / "experiments").glob("*.json") if "runs" not in json.loads(p.read_text()))


def files(*names: str) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in names]


def workflow(*names: str, kind: str | None = None, **overrides) -> ConfigWorkflow:
    made = create_workflow("ConfigWorkflow", config_file=files(*names), workflow_type=kind, logging_file=False, **overrides)
    assert isinstance(made, ConfigWorkflow)
    return made


@pytest.fixture(scope="module")
def metadata() -> dict:
    return json.loads((CONFIGS / "metadata.json").read_text())


@pytest.fixture(scope="module")
def random_model(metadata, tmp_path_factory) -> Path:
    """A model folder as a training leaves it, for the shapes the metadata names, with random weights."""
    folder = tmp_path_factory.mktemp("random")
    image, pred = metadata["network_data_format"]["inputs"]["image"], metadata["network_data_format"]["outputs"]["pred"]
    shape = {"scales": [16, 32], "modes": [4, 8], "channels": [4, 4, 4, 4], "refinements": [1, 1], "hidden": 8, "points": 32}
    shape |= {"structure": None, "segmentation": True, "field": [8, 8, 8]}
    labels = {int(channel): name for channel, name in pred["channel_def"].items()}
    plan = Plan(labels=labels, size=tuple(image["spatial_shape"]), extra={"shape": shape})
    plan.save(folder / "plan.json")
    save_weights(folder / "model.pt", network_from_plan(plan))
    return folder


def test_all_overlays_are_there():
    assert {"deepssm", "tl_deepssm", "no_progression", "no_segmentation", "no_deep_supervision", "progressive"} <= set(OVERLAYS)


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
        assert config["epochs"] * images / total == pytest.approx(plain["epochs"]), overlay


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
        assert made.bundle_root == str(BUNDLE)
        if name == "inference":
            assert isinstance(made.evaluator, SupervisedEvaluator)


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


def test_network_answers_as_the_metadata_says(random_model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = {"meta_file": files("metadata")[0], "config_file": files("inference")[0], "device": "cpu"}
    verify_net_in_out("network_def", **arguments, bundle_root=str(BUNDLE), model_dir=str(random_model))


def test_points_come_from_the_same_weights(random_model):
    network = network_from_plan(Plan.load(random_model / "plan.json"))
    network.load_state_dict(torch.load(random_model / "model.pt", weights_only=True))
    assert network.shape(torch.rand(1, 1, 48, 64, 48)).points[-1].shape == (1, 32, 3)
