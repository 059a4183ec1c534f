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
    "segmentation_channels": [8, 8, 8, 8],
    "precision": "float32",
    "label_limit": 2,
    "epochs": 2,
    "epoch_length": 9,
    "validation_interval": 2,
    "labelled_pairs": 0.3,
    # Adam's first steps are as long for the smallest gradients as for the largest: rounding would turn single weights around.
    "optimizer#_target_": "torch.optim.SGD",
    "registration_optimizer#_target_": "torch.optim.SGD",
    "registration_learning_rate": 0.05,
    "segmentation_learning_rate": 0.05,
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
def folders(train, small_dataset, tmp_path_factory) -> list[Path]:
    """Output of one process with two pairs, and of two processes with one each."""
    output = tmp_path_factory.mktemp("processes")
    settings = {"dataset_dir": small_dataset, **SETTINGS}
    train(output / "1", **settings, pairs=2, segmentation_pairs=2)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "monai.bundle", "run", "training"]
    configs = [str(CONFIGS / name) for name in ("train.json", "multi_gpu_train.json")]
    command = [sys.executable, "-W", "ignore", *launch, "--config_file", str(configs), "--logging_file", str(CONFIGS / "logging.conf")]
    command += [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command += ["--pairs", "1", "--segmentation_pairs", "1", "--output_dir", str(output / "2")]
    result = subprocess.run(command, env=environment, cwd=output, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return [output / "1", output / "2"]


def test_the_loss_curves_agree(folders):
    one, two = (curves(folder) for folder in folders)
    assert one.keys() == two.keys()
    assert len(one["step/loss"]) == 18
    assert len(one["loss"]) == 2
    assert {f"step/{name}" for name in ("registration/similarity", "registration/anatomy", "segmentation/supervised")} <= one.keys()
    assert sum(value > 0 for value in one["step/segmentation/anatomy"]) > 3
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=3e-3, abs=3e-3), name


@pytest.mark.parametrize("name", ["model.pt", "registration.pt"])
def test_the_weights_agree(folders, name):
    one, two = (torch.load(folder / name, weights_only=True) for folder in folders)
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=1e-3, rtol=1e-2)


def test_what_one_process_wrote_the_other_kind_can_resume(folders):
    one, two = (torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in folders)
    assert one["objects"]["network"].keys() == two["objects"]["network"].keys()
    assert (one["epoch"], one["iteration"]) == (two["epoch"], two["iteration"]) == (2, 18)
