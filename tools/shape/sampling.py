"""Points spread over a surface, in an order whose beginnings are spread as well: the nested scales of a progressive model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["SMALLEST_SCALE", "farthest_point_order", "scale_sizes"]

SMALLEST_SCALE = 64


def farthest_point_order(points: np.ndarray, count: int, start: int | Sequence[int] | None = None) -> np.ndarray:
    """Numbers of ``count`` points, each the farthest from all before it (Gonzalez 1985; Eldar et al. 1997).

    Args:
        points: (V, 3).
        count: how many; at most V.
        start: number of the first, or numbers of the first ones, at most ``count``; by default the one farthest from the centroid.

    Returns:
        (count,) int64; its first m entries are the choice of m points.

    Raises:
        ValueError: ``count`` is not between 1 and V.
    """
    points = np.asarray(points, dtype=np.float64)
    if not 1 <= count <= len(points):
        raise ValueError(f"cannot choose {count} of {len(points)} points")
    chosen = np.empty(count, dtype=np.int64)
    first = np.atleast_1d(np.argmax(((points - points.mean(0)) ** 2).sum(1)) if start is None else start)
    chosen[: len(first)] = first
    nearest = np.full(len(points), np.inf)
    for place in range(1, count):
        np.minimum(nearest, ((points - points[chosen[place - 1]]) ** 2).sum(1), out=nearest)
        if place >= len(first):
            chosen[place] = np.argmax(nearest)
    return chosen


def scale_sizes(points: int, smallest: int = SMALLEST_SCALE) -> list[int]:
    """Sizes of the nested scales, each half of the next: 64, 128, 256, 512 for 512 points."""
    sizes = [points]
    while sizes[0] % 2 == 0 and sizes[0] // 2 >= smallest:
        sizes.insert(0, sizes[0] // 2)
    return sizes
