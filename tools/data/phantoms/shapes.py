"""Implicit shapes: each function returns a signed distance in mm, negative inside, for points (3, N) in mm.

Distances are exact for capsules of one radius and first order elsewhere, which is enough to place a surface (the zero
level is exact) and to soften it over a voxel.
"""

from __future__ import annotations

import numpy as np

__all__ = ["capsule", "difference", "ellipsoid", "path", "smoothstep", "turned", "union"]


def _column(values: tuple[float, ...] | float) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).reshape(-1, 1)


def ellipsoid(points: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...], power: float = 2.0) -> np.ndarray:
    """Superellipsoid sum |(p - centre) / radii|**power = 1; a power above 2 makes it boxier.

    The distance is (f - 1) / |grad f| with f the power norm of the scaled point: exact on the surface, first order near it.
    """
    radii = _column(radii)
    scaled = np.abs((points - _column(centre)) / radii)
    if power == 2.0:
        f = np.sqrt(np.einsum("ij,ij->j", scaled, scaled))
    else:
        f = (scaled**power).sum(0) ** (1 / power)
    f = np.maximum(f, 1e-4)
    ratio = scaled / f
    gradient = (ratio if power == 2.0 else ratio ** (power - 1)) / radii
    return (f - 1) / np.maximum(np.sqrt(np.einsum("ij,ij->j", gradient, gradient)), 1e-4)


def capsule(
    points: np.ndarray, start: tuple[float, ...], end: tuple[float, ...], radius: float, end_radius: float | None = None
) -> np.ndarray:
    """Capsule about a segment, its radius going linearly from ``radius`` at ``start`` to ``end_radius`` at ``end``."""
    first, axis = _column(start), _column(end) - _column(start)
    offset = points - first
    along = np.clip(np.einsum("ij,ik->j", offset, axis) / float((axis**2).sum()), 0, 1)
    offset = offset - along * axis
    growth = 0.0 if end_radius is None else end_radius - radius
    return np.sqrt(np.einsum("ij,ij->j", offset, offset)) - (radius + growth * along)


def path(points: np.ndarray, nodes: list[tuple[float, float, float]], radii: list[float], blend: float = 2.0) -> np.ndarray:
    """A chain of tapered capsules through ``nodes``, blended into one tube."""
    parts = [capsule(points, a, b, ra, rb) for a, b, ra, rb in zip(nodes[:-1], nodes[1:], radii[:-1], radii[1:])]
    return union(blend, *parts)


def union(blend: float, *distances: np.ndarray) -> np.ndarray:
    """Union whose seams are rounded over ``blend`` mm (the polynomial smooth minimum)."""
    result = distances[0]
    for other in distances[1:]:
        overlap = np.maximum(blend - np.abs(result - other), 0)
        result = np.minimum(result, other) - overlap**2 / (4 * blend)
    return result


def difference(blend: float, distance: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """``distance`` without the ``others``, edges rounded over ``blend`` mm."""
    return -union(blend, -distance, *others)


def turned(points: np.ndarray, centre: tuple[float, ...], axis: int, degrees: float) -> np.ndarray:
    """Points turned about ``centre`` by -``degrees`` round a coordinate axis: a shape evaluated there is turned by +``degrees``."""
    angle = np.deg2rad(-degrees)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    offset = points - _column(centre)
    result = offset.copy()
    result[i] = np.cos(angle) * offset[i] - np.sin(angle) * offset[j]
    result[j] = np.sin(angle) * offset[i] + np.cos(angle) * offset[j]
    return result + _column(centre)


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, a smooth ramp between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)
