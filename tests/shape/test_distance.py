from __future__ import annotations

import numpy as np
import pytest
import pyvista

from tools.shape.distance import closest_points, point_distances, surface_distance, warp_mesh, warp_weights
from tools.shape.sampling import farthest_point_order
from tools.shape.surfaces import Surface, from_polydata


def ball(radius: float) -> Surface:
    return from_polydata(pyvista.Icosphere(radius=radius, nsub=3))


def test_concentric_balls():
    found = surface_distance(ball(10), ball(12))
    assert found.mean == pytest.approx(2, abs=0.05)
    assert found.hausdorff == pytest.approx(2, abs=0.1)
    assert len(found.forward) == len(ball(10).vertices)


def test_distance_is_to_the_triangle_not_its_corners():
    triangle = Surface(np.array([[0.0, 0, 0], [30, 0, 0], [0, 30, 0]]), np.array([[0, 1, 2]]))
    points = np.array([[10.0, 10, 4], [-3, 0, 4]])
    assert point_distances(points, triangle) == pytest.approx([4, 5])
    assert closest_points(points, triangle) == pytest.approx(np.array([[10, 10, 0], [0, 0, 0]]), abs=1e-9)


def test_hausdorff_sees_both_directions():
    two = Surface(np.concatenate((ball(5).vertices, ball(5).vertices + [40, 0, 0])), np.concatenate((ball(5).faces, ball(5).faces + 642)))
    assert surface_distance(ball(5), two).hausdorff > 29
    assert surface_distance(two, ball(5)).hausdorff > 29


def test_affine_warp_is_exact():
    template = ball(10)
    points = template.vertices[farthest_point_order(template.vertices, 20)]
    matrix, shift = np.array([[1.2, 0.1, 0], [0, 0.8, 0.2], [0, 0, 1]]), np.array([50.0, 0, -10])
    warped = warp_mesh(template, points, points @ matrix.T + shift)
    assert warped.vertices == pytest.approx(template.vertices @ matrix.T + shift, abs=1e-5)
    assert (warped.faces == template.faces).all()


def test_warp_passes_through_its_points():
    template = ball(10)
    order = farthest_point_order(template.vertices, 30)
    moved = template.vertices[order] + np.random.default_rng(0).normal(size=(30, 3))
    assert (warp_weights(template.vertices[order], template.vertices) @ moved)[order] == pytest.approx(moved, abs=1e-6)


def test_unequal_numbers_of_points_are_refused():
    with pytest.raises(ValueError, match="as many points"):
        warp_mesh(ball(1), np.zeros((5, 3)), np.zeros((6, 3)))
