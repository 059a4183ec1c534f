"""A training that is killed with SIGKILL, whenever, ends with the weights of the unbroken one, bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_runs import assert_same_files, train_and_kill


@pytest.fixture(scope="module")
def killed(bundle, tiny, ellipsoid_dataset, tmp_path_factory) -> tuple[Path, dict[str, int]]:
    """Folder with ``unbroken`` and ``killed``, and how often a process was killed."""
    output = tmp_path_factory.mktemp("resume")
    settings = {**tiny, "epochs": 6, "epoch_length": 3, "batch_size": 2, "validation_interval": 2, "shape_augmentation": 0.3}
    # Two files of weights are written an epoch: model.pt and the checkpoint.
    return output, train_and_kill(bundle, output, {"dataset_dir": str(ellipsoid_dataset), **settings}, writing=[2, 1])


def test_it_was_killed_at_random_moments_and_while_writing(killed):
    assert killed[1] == {"at_steps": 0, "killed": 4, "in_writing": 2}


def test_killed_and_unbroken_training_end_alike(killed):
    unbroken, broken = (killed[0] / name for name in ("unbroken", "killed"))
    assert_same_files(unbroken, broken, ["model.pt", "checkpoints/last.pt"])
    for name in ("plan.json", "splits.json", "training.json", "template.vtk"):
        assert (unbroken / name).read_bytes() == (broken / name).read_bytes()
