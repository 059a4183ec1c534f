"""Two processes with two cases each train as one process with four does."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import assert_alike, curves, train_in_two_processes

# Adam's first steps are as long for the smallest gradients as for the largest: rounding would turn single weights around.
SETTINGS = {"epochs": 2, "epoch_length": 6, "validation_interval": 2, "optimizer#_target_": "torch.optim.SGD", "shape_augmentation": 0.3}


@pytest.fixture(scope="module")
def folders(train, bundle, tiny, ellipsoid_dataset, tmp_path_factory) -> list[Path]:
    """Output of one process, and of two."""
    output = tmp_path_factory.mktemp("processes")
    one = train(output / "1", **SETTINGS, batch_size=4)
    settings = {key: value for key, value in {**tiny, **SETTINGS}.items() if key != "device"}
    return [one, train_in_two_processes(bundle, output / "2", {"dataset_dir": ellipsoid_dataset, **settings, "batch_size": 2})]


def test_the_loss_curves_agree(folders):
    one, two = (curves(folder) for folder in folders)
    assert one.keys() == two.keys()
    assert {"step/points", "step/segmentation", "step/uncertainty", "step/scale/64"} <= one.keys()
    assert len(one["step/loss"]) == 12
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=3e-3, abs=3e-3), name


def test_weights_and_checkpoints_agree(folders):
    assert_alike(*folders, "model.pt", (2, 12))
