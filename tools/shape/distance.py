"""Distances between surfaces, point to triangle, and the surface that belongs to corresponding points."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyvista
from scipy.interpolate import RBFInterpolator

from tools.shape.surfaces import Surface, to_polydata

__all__ = ["SurfaceDistance", "closest_points", "point_distances", "surface_distance", "warp_mesh", "warp_weights"]


class SurfaceDistance(NamedTuple):
    """Distances between two surfaces, mm.

    Attributes:
        mean: the symmetric mean: both directions' means averaged.
        hausdorff: the largest of both directions.
        forward: from each vertex of the first to the second surface, (V,).
        backward: from each vertex of the second to the first surface, (W,).
    """

    mean: float
    hausdorff: float
    forward: np.ndarray
    backward: np.ndarray


def point_distances(points: np.ndarray, surface: Surface) -> np.ndarray:
    """Distance from points (N, 3) to the nearest point of any triangle, mm, (N,)."""
    return np.abs(np.asarray(pyvista.PolyData(np.array(points)).compute_implicit_distance(to_polydata(surface))["implicit_distance"]))


def closest_points(points: np.ndarray, surface: Surface) -> np.ndarray:
    """The nearest point of any triangle to each of points (N, 3)."""
    return np.asarray(to_polydata(surface).find_closest_cell(np.array(points), return_closest_point=True)[1]).reshape(-1, 3)


def surface_distance(first: Surface, second: Surface) -> SurfaceDistance:
    """Distances of the vertices of each surface to the triangles of the other."""
    forward, backward = point_distances(first.vertices, second), point_distances(second.vertices, first)
    return SurfaceDistance(float(forward.mean() + backward.mean()) / 2, float(max(forward.max(), backward.max())), forward, backward)


def warp_weights(template_points: np.ndarray, vertices: np.ndarray, kernel: str = "cubic", smoothing: float = 0.0) -> np.ndarray:
    """Splines from points to vertices as a matrix: vertices = weights @ points, for any points of the same correspondence.

    The kernels are polyharmonic splines (Duchon 1977): "linear", -r, is the thin-plate spline of three dimensions; "cubic", r^3, is
    smoother and, between points on smooth surfaces, came nearer to the truth. An affine map of the points maps the vertices likewise,
    so the points may lie in any world.

    Args:
        template_points: (M, 3), at least four of them not in one plane.
        vertices: (V, 3) in the same frame.
        kernel: "linear" or "cubic".
        smoothing: weight of the bending energy; 0 passes through the points.

    Returns:
        (V, M) float64.
    """
    centre, size = template_points.mean(0), template_points.std()
    identity = np.eye(len(template_points))
    spline = RBFInterpolator((template_points - centre) / size, identity, kernel=kernel, degree=1, smoothing=smoothing)
    return spline((vertices - centre) / size)


def warp_mesh(template: Surface, template_points: np.ndarray, points: np.ndarray) -> Surface:
    """The template's mesh, warped by splines so that its points come to lie on ``points``.

    For many shapes of one template keep :func:`warp_weights` and multiply.

    Raises:
        ValueError: the numbers of points differ.
    """
    if template_points.shape != points.shape:
        raise ValueError(f"expected as many points as the template has, got {points.shape} and {template_points.shape}")
    return Surface(warp_weights(template_points, template.vertices) @ points, template.faces)
