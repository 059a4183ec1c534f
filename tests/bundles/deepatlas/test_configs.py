"""Every config parses, builds, and is what MONAI's tools expect."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow, create_workflow, load, verify_metadata, verify_net_in_out
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from deepatlas.networks import registration_from_plan, segmentation_from_plan
from deepatlas.stages import Schedule
from tools.bundle.checkpoint import load_weights, save_weights
from tools.bundle.overrides import check_overrides
from tools.data.plan import Plan

REPOSITORY = Path(__file__).resolve().parents[3]
BUNDLE = REPOSITORY / "bundles" / "deepatlas"
CONFIGS = BUNDLE / "configs"
# A table of runs is no overlay: it has runs in it.
OVERLAYS = sorted(p.stem for p in (CONFIGS / "experiments").glob("*.json") if "runs" not in json.loads(p.read_text()))


def files(*names: str) -> list[str]:
    return [str(CONFIGS / f"{name}.json") for name in names]


@pytest.fixture(scope="module")
def metadata() -> dict:
    return json.loads((CONFIGS / "metadata.json").read_text())


@pytest.fixture(scope="module")
def random_model(metadata, tmp_path_factory) -> Path:
    """A model folder as a training leaves it, for the shapes the metadata names, with random weights."""
    folder = tmp_path_factory.mktemp("random")
    image, pred = metadata["network_data_format"]["inputs"]["image"], metadata["network_data_format"]["outputs"]["pred"]
    labels = {int(channel): name for channel, name in pred["channel_def"].items()}
    plan = Plan(labels=labels, size=tuple(image["spatial_shape"]))
    plan.save(folder / "plan.json")
    save_weights(folder / "model.pt", segmentation_from_plan(plan))
    save_weights(folder / "registration.pt", registration_from_plan(plan))
    return folder


def workflow(*names: str, kind: str | None = None, **overrides) -> ConfigWorkflow:
    made = create_workflow("ConfigWorkflow", config_file=files(*names), workflow_type=kind, logging_file=False, **overrides)
    assert isinstance(made, ConfigWorkflow)
    return made


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
        assert made.bundle_root == str(BUNDLE)


def test_inference_builds(small_dataset, random_model, tmp_path):
    made = workflow("inference", kind="infer", dataset_dir=str(small_dataset), output_dir=str(tmp_path), model_dir=str(random_model))
    assert isinstance(made.evaluator, SupervisedEvaluator)
    assert len(made.dataset) == 6


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_monai_loads_the_network(random_model, monkeypatch, tmp_path, kind):
    """``monai.bundle.load`` passes no bundle_root and never runs the workflow."""
    shutil.copytree(BUNDLE / "configs", tmp_path / "deepatlas" / "configs")
    shutil.copytree(random_model, tmp_path / "deepatlas" / "models")
    monkeypatch.chdir(tmp_path)
    network = load("deepatlas", bundle_dir=str(tmp_path), workflow_type=kind, source="github")
    expected = torch.load(random_model / "model.pt", weights_only=True)
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_initialise_twice_touches_no_data(tmp_path):
    made = ConfigWorkflow(config_file=files("train"), workflow_type="train", logging_file=False, dataset_dir=str(tmp_path / "none"))
    made.initialize()
    made.initialize()
    assert not list(tmp_path.iterdir())


def test_metadata_fits_the_schema(metadata, tmp_path):
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


def test_network_is_verified_from_the_folder_of_bundles(random_model):
    """There, a folder without ``__init__.py`` has the name of the bundle's package."""
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "verify_net_in_out", "network_def", "--device", "cpu"]
    command += ["--meta_file", "deepatlas/configs/metadata.json", "--config_file", "deepatlas/configs/inference.json"]
    command += ["--bundle_root", "deepatlas", "--model_dir", str(random_model)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, cwd=BUNDLE.parent, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "data shape of network is verified with no error" in result.stdout + result.stderr


def test_other_packages_of_these_names_are_passed_over(random_model, tmp_path):
    """A folder ``tools`` in the current folder is common, and Python looks there first."""
    for name in ("tools", "deepatlas"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')")
    (tmp_path / "images").mkdir()
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", files("inference")[0]]
    command += ["--dataset_dir", "images", "--model_dir", str(random_model)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("error: images: ")


def test_shipped_weights_load():
    plan = Plan.load(BUNDLE / "models" / "plan.json")
    load_weights(BUNDLE / "models" / "model.pt", segmentation_from_plan(plan))
    load_weights(BUNDLE / "models" / "registration.pt", registration_from_plan(plan))
    names = json.loads((CONFIGS / "metadata.json").read_text())["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert list(plan.labels) == [int(channel) for channel in names]
    split = json.loads((BUNDLE / "models" / "splits.json").read_text())
    assert not set(split["train"]) & set(split["report"])
