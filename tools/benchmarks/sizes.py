"""Seconds and memory of real training steps at one grid size, each size in a process of its own, because peak memory never falls."""

from __future__ import annotations

import multiprocessing
import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tools.benchmarks.modules import bundle_modules

__all__ = ["measure_size"]


def measure_size(
    bundle_root: str | Path, size: tuple[int, int, int], precision: str = "auto", threads: int = 2, steps: int = 2
) -> dict[str, Any]:
    """Train a few steps of both networks on one pair of random images of this size.

    Args:
        bundle_root: folder of the deepatlas bundle.
        size: grid in voxels, multiples of 16.
        precision: as in the training.
        threads: CPU threads.
        steps: measured steps of each network, after one to warm up.

    Returns:
        ``size``, ``precision``, ``registration_step`` and ``segmentation_step`` (median seconds, one pair a step),
        ``registration_pair`` (seconds of one pair through the trained network) and ``peak_gib`` (greatest memory of the process).
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure, (str(bundle_root), tuple(size), precision, threads, steps))


def _measure(bundle_root: str, size: tuple[int, int, int], precision: str, threads: int, steps: int) -> dict[str, Any]:
    import torch

    from tools.data.augmentation import Augmentation

    torch.set_num_threads(threads)
    networks, training, stages = bundle_modules(bundle_root, "networks", "training", "stages")
    segmentation, registration = networks.segmentation_network(3), networks.registration_network(3)
    schedule = stages.Schedule([stages.Stage("both", registration=1, segmentation=1)], total_steps=2 * (steps + 1))
    update = training.DeepAtlasUpdate(
        segmentation,
        registration,
        torch.optim.AdamW(segmentation.parameters()),
        torch.optim.AdamW(registration.parameters()),
        schedule,
        num_classes=3,
        augmentation=Augmentation(),
        precision=precision,
    )
    image = torch.rand(2, 1, *size)
    batch = {"image": image, "label": (image * 2.99).long(), "labelled": torch.tensor([True, False])}
    seconds: dict[str, list[float]] = {"registration": [], "segmentation": []}
    for step in range(2 * (steps + 1)):
        engine = SimpleNamespace(state=SimpleNamespace(iteration=step + 1, device=torch.device("cpu")))
        begin = time.perf_counter()
        update(engine, {key: value.clone() for key, value in batch.items()})
        seconds[schedule(step).network].append(time.perf_counter() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    registration.eval()
    begin = time.perf_counter()
    with torch.inference_mode(), update.autocast(torch.device("cpu")):
        registration(image[:1], image[1:])
    pair = time.perf_counter() - begin
    return {
        "size": list(size),
        "precision": precision,
        "registration_step": sorted(seconds["registration"][1:])[steps // 2],
        "segmentation_step": sorted(seconds["segmentation"][1:])[steps // 2],
        "registration_pair": pair,
        "peak_gib": peak,
    }
