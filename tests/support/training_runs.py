"""Trainings in processes of their own: killed again and again, or two that share a batch; and what is compared of them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bundle_runs import REPOSITORY, BundleRuns
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tools.bundle.training_record import read_training

__all__ = ["ENVIRONMENT", "assert_alike", "assert_same_files", "curves", "train_and_kill", "train_in_two_processes"]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def curves(folder: Path) -> dict[str, list[float]]:
    """Every scalar that a training has logged, by name."""
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def assert_same_files(first: Path, second: Path, names: Sequence[str]) -> None:
    """Both folders hold these files of weights or checkpoints, equal bit by bit."""
    for name in names:
        _assert_same(*(torch.load(folder / name, weights_only=True) for folder in (first, second)), name)


def assert_alike(first: Path, second: Path, weights: str, position: tuple[int, int]) -> None:
    """The weights that one process and two have learnt agree up to rounding, and either kind can resume what the other wrote, at this
    epoch and iteration; both say of it the same."""
    one, two = (torch.load(folder / weights, weights_only=True) for folder in (first, second))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], atol=1e-3, rtol=1e-2)
    one, two = (torch.load(folder / "checkpoints" / "last.pt", weights_only=True) for folder in (first, second))
    assert one["objects"]["network"].keys() == two["objects"]["network"].keys()
    assert (one["epoch"], one["iteration"]) == (two["epoch"], two["iteration"]) == position
    assert read_training(first) == read_training(second) != {}


def _assert_same(first: Any, second: Any, where: str) -> None:
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            _assert_same(first[key], second[key], f"{where}, {key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), where
        for k, pair in enumerate(zip(first, second)):
            _assert_same(*pair, f"{where}, {k}")
    else:
        assert first == second, where


def train_and_kill(
    bundle: BundleRuns,
    output: Path,
    settings: Mapping[str, Any],
    writing: Sequence[int],
    kills: int = 4,
    steps: Sequence[int] = (),
    overlays: Sequence[str] = (),
) -> dict[str, int]:
    """Train to ``output/unbroken``, and to ``output/killed`` with SIGKILL at some steps, at random moments and in the middle of writing.

    Args:
        bundle: what to train.
        output: folder.
        settings: overrides.
        writing: after how many files each of the last comes.
        kills: number of those at random moments.
        steps: of the run, after which the first ones come.
        overlays: config files over ``train``.

    Returns:
        how many processes died: "at_steps", "killed" (at random moments) and "in_writing".
    """
    generator = random.Random(20)
    arguments = {"config_file": bundle.files("train", *overlays), **settings}
    moments = {"steps": list(steps), "random": [generator.uniform(0.02, 0.25) for _ in range(kills)], "writing": list(writing)}
    job = {"arguments": arguments, "output_dir": str(output), "kills": moments}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("killed_training.py")), json.dumps(job)]
    result = subprocess.run(command, env=ENVIRONMENT, cwd=output, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(result.stdout.splitlines()[-1])


def train_in_two_processes(bundle: BundleRuns, output: Path, settings: Mapping[str, Any]) -> Path:
    """``torchrun`` with two processes on the CPU, as the page says it; returns ``output``."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "monai.bundle", "run", "training"]
    configs, logging = str(bundle.files("train", "multi_gpu_train")), str(bundle.root / "configs" / "logging.conf")
    command = [sys.executable, "-W", "ignore", *launch, "--config_file", configs, "--logging_file", logging]
    command += [word for key, value in {**settings, "output_dir": output}.items() for word in (f"--{key}", str(value))]
    environment = {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=environment, cwd=output.parent, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return output
