"""Two processes with one pair each train as one process with two pairs does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

REPOSITORY = Path(__file__).resolve().parents[3]
CONFIGS = REPOSITORY / "bundles" / "deepatlas" / "configs"
SETTINGS = {
    "registration_channels": [8, 8, 8, 8],
    "registration_hidden": [8, 8, 8, 8],
    "segmentation_channels": [4, 8, 8, 8],
    "precision": "float32",
    "label_limit": 2,
    "epochs": 2,
    "epoch_length": 9,
    "validation_interval": 2,
    "labelled_pairs": 0.3,
    "registration_learning_rate": 0.0005,
    "segmentation_learning_rate": 0.0005,
    "stages": [
        {"name": "images", "share": 0.2, "registration": 1, "registration_from": "images"},
        {"name": "joint", "share": 0.8, "registration": 1, "segmentation": 2},
    ],
}


def curves(folder: Path) -> dict[str, list[float]]:
    """Every scalar that was logged at each step, by name."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture(scope="module")
def folders(small_dataset, tmp_path_factory) -> list[Path]:
    """Output of one process with two pairs, and of two processes with one each."""
    output = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    for processes in (1, 2):
        overrides = {"dataset_dir": small_dataset, "output_dir": output / str(processes), "pairs": 2 // processes, **SETTINGS}
        configs = ["train.json"] if processes == 1 else ["train.json", "multi_gpu_train.json"]
        launch = [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [sys.executable, "-W", "ignore", *launch, "-m", "monai.bundle", "run", "training"]
        command += ["--config_file", str([str(CONFIGS / name) for name in configs]), "--logging_file", str(CONFIGS / "logging.conf")]
        command += [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
        result = subprocess.run(command, env=environment, cwd=output, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return [output / "1", output / "2"]


def test_the_loss_curves_agree(folders):
    one, two = (curves(folder) for folder in folders)
    assert one.keys() == two.keys()
    assert len(one["loss"]) == 18
    assert {"registration/similarity", "registration/anatomy", "segmentation/supervised", "segmentation/anatomy"} <= one.keys()
    assert sum(value > 0 for value in one["segmentation/anatomy"]) > 3
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=2e-3, abs=2e-3), name


@pytest.mark.parametrize("name", ["model.pt", "registration.pt"])
def test_the_weights_agree(folders, name):
    one, two = (torch.load(folder / name, weights_only=True) for folder in folders)
    assert one.keys() == two.keys()
    moved = max(float((a - b).abs().max()) for a, b in zip(one.values(), two.values()))
    # Adam's first steps are as long for the smallest gradients as for large ones: rounding turns single weights around.
    assert moved < 9 * 2 * 0.0005
    difference = torch.cat([(a - b).abs().flatten() for a, b in zip(one.values(), two.values())])
    assert difference.float().mean() < 1e-4


def test_what_one_process_wrote_the_other_kind_can_resume(folders):
    one, two = (torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in folders)
    assert one["objects"]["network"].keys() == two["objects"]["network"].keys()
    assert (one["epoch"], one["iteration"]) == (two["epoch"], two["iteration"]) == (2, 18)
