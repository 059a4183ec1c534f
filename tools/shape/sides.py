"""Left and right: which surfaces of a set are mirror images of the others. One shape model of both would be of neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tools.shape.distance import surface_distance
from tools.shape.icp import place
from tools.shape.surfaces import Surface, decimated, mirrored

__all__ = ["RATIO", "mirror_ratios"]

VERTICES = 1000  # of the meshes compared
ITERATIONS = 12

#: Smaller ratios are of the other side. Measured against the shape in the middle of each set: calcanei, tali, fibulae and tibiae of the
#: other side at most 0.58, of the same side at least 1.23; hippocampi, atria, ventricles and vertebrae, alike mirrored, at least 0.85.
RATIO = 0.7


def mirror_ratios(template: Surface, surfaces: Sequence[Surface], progress: Callable[[int], None] | None = None) -> np.ndarray:
    """How much nearer a template comes to the mirror images of surfaces than to the surfaces, (N,); see :data:`RATIO`.

    The template is laid on both by iterative closest points, in any orientation; the ratio is that of the mean surface distances.

    Args:
        template: of one side.
        surfaces: N, of either.
        progress: called with the number of the surface that is done.
    """
    template = decimated(template, VERTICES)
    ratios = []
    for number, surface in enumerate(surfaces):
        surface = decimated(surface, VERTICES)
        own, other = (_residual(template, target) for target in (surface, mirrored(surface)))
        ratios.append(other / max(own, 1e-9))
        if progress:
            progress(number)
    return np.array(ratios)


def _residual(template: Surface, surface: Surface) -> float:
    placed = place(template.vertices, surface, iterations=ITERATIONS).apply(template.vertices)
    return surface_distance(Surface(placed, template.faces), surface).mean
