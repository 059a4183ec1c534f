"""How trainings stood at each of their validations, from the curves that they log: at the last look, and at a scheme's best one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

__all__ = ["looks", "summarise_looks"]


def looks(run: Path, tag: str) -> dict[int, float]:
    """Epoch to the value of a validation metric, of one training; a look that was repeated after a kill counts once.

    Args:
        run: folder of the training, with TensorBoard's files in ``tensorboard``.
        tag: name of the metric.

    Returns:
        empty where the training has not logged it.
    """
    found: dict[int, float] = {}
    for file in sorted((run / "tensorboard").glob("events.out.tfevents.*")):
        events = _read(file, file.stat().st_mtime_ns)
        if tag in events.Tags()["scalars"]:
            found |= {event.step: event.value for event in events.Scalars(tag)}
    return found


@cache
def _read(file: Path, changed: int) -> EventAccumulator:
    """A table is written after every run, and asks for the metrics of all domains: a file is read once, until it has changed."""
    # validation is far less frequent than steps, of which as few as possible are kept
    return EventAccumulator(str(file), size_guidance={"scalars": 1000}).Reload()


def summarise_looks(curves: Sequence[dict[int, float]]) -> dict[str, Any] | None:
    """The mean over trainings at the last look, and at the look where that mean is highest.

    One epoch is chosen for all trainings: the best step of a scheme, not that of each of its runs, which would flatter short validations.

    Args:
        curves: epoch to value, a training each; epochs that not all of them have are left out.

    Returns:
        ``last``, ``best``, ``best_epoch``, ``last_epoch`` and the number of ``looks``, or None where there is no common look.
    """
    common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    if not common:
        return None
    means = np.array([np.mean([curve[epoch] for curve in curves]) for epoch in common])
    best = int(means.argmax())
    return {
        "last": float(means[-1]),
        "best": float(means[best]),
        "best_epoch": common[best],
        "last_epoch": common[-1],
        "looks": len(common),
    }
