"""Which images the network's grid crops, told from their headers."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np

from tools.data.decathlon import Case
from tools.data.plan import Plan, grid_along, read_header

__all__ = ["by", "voxels_on_grid", "warn_of_cropping"]

logger = logging.getLogger("data")


def voxels_on_grid(case: Case, plan: Plan) -> np.ndarray:
    """How many voxels of the plan's grid a case's image fills along each axis, (3,), from its header."""
    shape, spacing = grid_along(*read_header(case), plan.orientation)
    return np.round(shape * spacing / np.array(plan.spacing)).astype(int)


def warn_of_cropping(cases: Iterable[Case], plan: Plan, sizes: Iterable[np.ndarray] | None = None) -> None:
    """Warn, in one line, of images that are larger than the plan's grid: how many there are, and the size of the first one.

    Args:
        cases: the images.
        plan: the plan.
        sizes: of each what :func:`voxels_on_grid` says, where that is known; else the headers are read.
    """
    cases = list(cases)
    sizes = [voxels_on_grid(case, plan) for case in cases] if sizes is None else sizes
    larger = [(case, voxels) for case, voxels in zip(cases, sizes, strict=True) if (voxels > plan.size).any()]
    cropped = [f"{case.image}: {by(voxels)} voxels of {by(plan.spacing)} mm" for case, voxels in larger]
    if cropped:
        grid = f"the network's grid, {by(plan.size)}"
        logger.warning(f"{len(cropped)} image(s) are larger than {grid}, and cropped to it about their centre, such as {cropped[0]}")


def by(values: Iterable[float]) -> str:
    """Sizes as text: "48 x 64 x 48"."""
    return " x ".join(f"{value:g}" for value in values)
