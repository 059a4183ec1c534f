"""Two processes with one pair each train as one process with two pairs does."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import assert_alike, curves, train_in_two_processes

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


@pytest.fixture(scope="module")
def folders(train, bundle, small_dataset, tmp_path_factory) -> list[Path]:
    """Output of one process with two pairs, and of two processes with one each."""
    output = tmp_path_factory.mktemp("processes")
    settings = {"dataset_dir": small_dataset, **SETTINGS}
    train(output / "1", **settings, pairs=2, segmentation_pairs=2)
    train_in_two_processes(bundle, output / "2", {**settings, "pairs": 1, "segmentation_pairs": 1})
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
def test_weights_and_checkpoints_agree(folders, name):
    assert_alike(*folders, name, (2, 18))
