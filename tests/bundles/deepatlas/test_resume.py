"""A training that is killed with SIGKILL, whenever, ends with the weights of the unbroken one, bit by bit."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import ENVIRONMENT, assert_same_files, train_and_kill

FILES = ("model.pt", "registration.pt", "checkpoints/last.pt")
SETTINGS = {
    "registration_channels": [8, 8, 8, 8],
    "registration_hidden": [8, 8, 8, 8],
    "segmentation_channels": [8, 8, 8, 8],
    "label_limit": 2,
    "epochs": 6,
    "epoch_length": 4,
    "pairs": 1,
    "validation_interval": 2,
    "progress_bar": False,
    "device": "cpu",
    "stages": [
        {"name": "images", "share": 0.2, "registration": 1, "registration_from": "images"},
        {"name": "labels", "share": 0.2, "segmentation": 1, "segmentation_from": "labels"},
        {"name": "joint", "share": 0.6, "registration": 2, "segmentation": 1, "share_features": True},
    ],
}


@pytest.fixture(scope="module")
def killed(bundle, small_dataset, tmp_path_factory) -> tuple[Path, dict[str, int]]:
    """Folder with ``unbroken`` and ``killed``, and how often a process was killed."""
    output = tmp_path_factory.mktemp("resume")
    # Three files are written an epoch: model.pt, registration.pt and the checkpoint.
    return output, train_and_kill(bundle, output, {"dataset_dir": str(small_dataset), **SETTINGS}, writing=[3, 1, 2])


def test_it_was_killed_at_random_moments_and_while_writing(killed):
    _, counts = killed
    assert counts == {"at_steps": 0, "killed": 4, "in_writing": 3}


def test_killed_and_unbroken_training_end_alike(killed):
    folder, _ = killed
    assert_same_files(folder / "unbroken", folder / "killed", FILES)
    for name in ("plan.json", "splits.json", "training.json"):
        assert (folder / "unbroken" / name).read_text() == (folder / "killed" / name).read_text()


def test_the_command_itself(killed, bundle, small_dataset, tmp_path):
    """`python -m monai.bundle run training`, killed after its second checkpoint, and again by the same command to the end."""
    overrides = {"dataset_dir": small_dataset, "output_dir": tmp_path / "out", "resume": "true", **SETTINGS}
    configs = {path.name: str(path) for path in (bundle.root / "configs").iterdir()}
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "training", "--config_file", configs["train.json"]]
    command += ["--logging_file", configs["logging.conf"], "--meta_file", configs["metadata.json"]]
    command += [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
    log = tmp_path / "log"
    with open(log, "w") as stream:
        process = subprocess.Popen(command, env=ENVIRONMENT, cwd=tmp_path, stdout=stream, stderr=subprocess.STDOUT)
        checkpoint, seen, end = tmp_path / "out" / "checkpoints" / "last.pt", set(), time.monotonic() + 120
        while len(seen) < 2 and process.poll() is None and time.monotonic() < end:
            if checkpoint.exists():
                seen.add(checkpoint.stat().st_ino)
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()[-3000:]
    result = subprocess.run(command, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same_files(killed[0] / "unbroken", tmp_path / "out", FILES)
