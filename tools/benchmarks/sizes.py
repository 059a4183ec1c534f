"""Seconds and memory of real training steps at one grid size, each size in a process of its own, because peak memory never falls."""

from __future__ import annotations

import multiprocessing
import resource
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tools.benchmarks.modules import bundle_modules
from tools.data.plan import Plan

__all__ = ["measure_size"]


def measure_size(bundle_root: str | Path, plan: Plan, precision: str = "auto", threads: int = 2, steps: int = 2) -> dict[str, Any]:
    """Train a few steps of both networks on one pair of random images.

    Args:
        bundle_root: folder of the deepatlas bundle.
        plan: its ``size`` is the grid; ``extra["segmentation"]`` and ``extra["registration"]`` say what the networks are where they are
            not the bundle's default ones.
        precision: as in the training.
        threads: CPU threads.
        steps: measured steps of each network, after one to warm up.

    Returns:
        ``size``, ``precision``, ``networks`` (the plan's ``extra``), ``registration_step`` and ``segmentation_step`` (median seconds, one
        pair a step), ``registration_pair`` (seconds of one pair through the trained network) and ``peak_gib`` (greatest memory of the
        process).

    Raises:
        DataError: the grid cannot hold the networks, or the plan names unknown ones.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_measure, (str(bundle_root), plan, precision, threads, steps))


def _measure(bundle_root: str, plan: Plan, precision: str, threads: int, steps: int) -> dict[str, Any]:
    import torch

    from tools.data.augmentation import Augmentation

    torch.set_num_threads(threads)
    networks, training, stages = bundle_modules(bundle_root, "networks", "training", "stages")
    segmentation, registration = networks.segmentation_from_plan(plan), networks.registration_from_plan(plan)
    schedule = stages.Schedule([stages.Stage("both", registration=1, segmentation=1)], total_steps=2 * (steps + 1))
    update = training.DeepAtlasUpdate(
        segmentation,
        registration,
        torch.optim.AdamW(segmentation.parameters()),
        torch.optim.AdamW(registration.parameters()),
        schedule,
        num_classes=plan.num_classes,
        augmentation=Augmentation(),
        precision=precision,
    )
    image = torch.rand(2, 1, *plan.size)
    batch = {"image": image, "label": (image * (plan.num_classes - 0.01)).long(), "labelled": torch.tensor([True, False])}
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
        "size": list(plan.size),
        "precision": precision,
        "networks": plan.extra,
        "registration_step": sorted(seconds["registration"][1:])[steps // 2],
        "segmentation_step": sorted(seconds["segmentation"][1:])[steps // 2],
        "registration_pair": pair,
        "peak_gib": peak,
    }
