"""All packed bundles, and two versions of one of them, in one Python process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from bundle_runs import BundleRuns
from phantom_runs import BUNDLES, CHOICES, QUICK, dataset_of, write_data

from tools.release.bundle import Bundle
from tools.release.pack import pack

# The second version answers label 1 everywhere.
CHANGE = """

import torch

_first = segmentation_from_plan


def segmentation_from_plan(plan):
    network = _first(plan)
    network.register_forward_hook(lambda module, images, logits: torch.zeros_like(logits).index_fill_(1, torch.tensor(1), 1.0))
    return network
"""
PROCESS = """
import json, sys
sys.modules.update(dict.fromkeys(("tools", "deepatlas", "multidomain_segmentation", "progressive_deepssm")))  # their import fails
from monai.bundle import create_workflow

for root, output, options in json.loads(sys.argv[1]):
    config = root + "/configs/inference.json"
    workflow = create_workflow("ConfigWorkflow", config_file=config, workflow_type="inference", output_dir=output, **options)
    workflow.run()
    inside = sys.modules[type(workflow.network_def).__module__].__file__
    own = {name: module.__file__ for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(root + "/")}
    print(json.dumps({"network": inside, "modules": own}))
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Phantoms of two joints."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> dict[str, Path]:
    """Copies of all bundles, each with weights of its own of a few steps."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in BUNDLES:
        runs = BundleRuns(name)
        shutil.copytree(runs.root, folder / name, ignore=shutil.ignore_patterns("models", "output", "__pycache__"))
        runs.call("training", "train", dataset_dir=dataset_of(name, data), output_dir=folder / name / "models", **QUICK[name])
    return {name: folder / name for name in BUNDLES}


@pytest.fixture(scope="module")
def unpacked(trained, tmp_path_factory) -> dict[str, Path]:
    """Unpacked archives: of all bundles, and "second", DeepAtlas in another version."""
    folder = tmp_path_factory.mktemp("unpacked")
    second = tmp_path_factory.mktemp("second") / "deepatlas"
    shutil.copytree(trained["deepatlas"], second)
    metadata = json.loads((second / "configs" / "metadata.json").read_text())
    (second / "configs" / "metadata.json").write_text(json.dumps({**metadata, "version": "0.99.0"}))
    with open(second / "deepatlas" / "networks.py", "a") as stream:
        stream.write(CHANGE)
    result = {}
    for key, source in {**trained, "second": second}.items():
        with zipfile.ZipFile(pack(source, folder / "dist")) as archive:
            archive.extractall(folder / key)
        result[key] = (folder / key / source.name).resolve()
    return result


def predictions(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(nib.load(path).dataobj) for path in sorted(folder.glob("*_seg.nii.gz"))}


def test_each_runs_its_own_code(trained, unpacked, data, tmp_path):
    (tmp_path / "empty").mkdir()
    order = ["deepatlas", "multidomain_segmentation", "second", "progressive_deepssm", "deepatlas", "second", *reversed(BUNDLES)]
    runs = []
    for number, key in enumerate(order):
        name = unpacked[key].name
        options = {"dataset_dir": str(dataset_of(name, data)), "logging_file": False, **CHOICES[name]}
        runs.append([str(unpacked[key]), str(tmp_path / str(number)), options])
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-W", "ignore", "-c", PROCESS, json.dumps(runs)]
    result = subprocess.run(command, cwd=tmp_path / "empty", env=environ, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]

    for name in BUNDLES:  # what the repository's code answers with the same weights
        options = {"dataset_dir": dataset_of(name, data), "model_dir": trained[name] / "models", **CHOICES[name]}
        BundleRuns(name).call("run", "inference", output_dir=tmp_path / name, **options)
    answers = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == len(order)
    for number, (key, answer) in enumerate(zip(order, answers)):
        bundle = Bundle.read(unpacked[key])
        assert Path(answer["network"]).is_relative_to(bundle.root)
        assert {module.split(".")[0] for module in answer["modules"]} == {bundle.packed_package, bundle.packed_shared}
        found, expected = predictions(tmp_path / str(number)), predictions(tmp_path / bundle.name)
        assert found.keys() == expected.keys()
        assert len(found) == 6
        if key == "second":
            assert all((values == 1).all() for values in found.values())
            assert not any((values == 1).all() for values in expected.values())
        else:
            assert all(np.array_equal(values, expected[file]) for file, values in found.items())
