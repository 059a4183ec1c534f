from __future__ import annotations

import numpy as np
import pytest
import pyvista

from tools.shape.comparison import belonging, carried_errors, compare
from tools.shape.sampling import farthest_point_order
from tools.shape.surfaces import Surface, from_polydata


@pytest.fixture(scope="module")
def family() -> tuple[np.ndarray, list[Surface]]:
    """Six ellipsoids and 40 true points on each."""
    ball = from_polydata(pyvista.Icosphere(radius=1.0, nsub=3))
    sizes = np.random.default_rng(0).normal((18, 12, 8), 1, size=(6, 3))
    vertices = ball.vertices * sizes[:, None]
    return vertices[:, farthest_point_order(ball.vertices * (18, 12, 8), 40)], [Surface(own, ball.faces) for own in vertices]


def test_points_of_other_structures_are_told_apart(family):
    points, surfaces = family
    assert belonging(np.concatenate((points, points[:, :3] * 1.3), axis=1), surfaces).tolist() == [True] * 40 + [False] * 3


def test_affine_family_is_carried_without_error(family):
    points, _ = family
    errors = carried_errors(points[:, :30], points[:, 30:])
    assert errors.pairs == pytest.approx(np.zeros((6, 6)), abs=1e-6)
    assert errors.points == pytest.approx(np.zeros((6, 10)), abs=1e-6)


def test_one_case_out_of_place(family):
    points, _ = family
    wrong = points[:, :30].copy()
    wrong[2] += [3.0, 0, 0]  # the map scales the shift by the ratio of sizes on the way out
    errors = carried_errors(wrong, points[:, 30:])
    assert errors.pairs[2, [0, 1, 3, 4, 5]] == pytest.approx(np.full(5, 3.0), rel=0.2)
    assert errors.pairs[0, 2] == pytest.approx(3)
    assert errors.points[2] == pytest.approx(np.full(10, 3.0))
    assert (errors.points[0] < 3.0 / 5 * 1.2).all()  # one of five others


def test_same_points_in_another_order_are_as_good(family):
    points, surfaces = family
    order = np.random.default_rng(1).permutation(40)
    found = compare(points, points[:, order], surfaces, [True] * 6)
    assert found.summary["points"] == 40
    for table in ("compactness", "generalisation", "specificity", "surface"):
        for ours, others in zip(found.tables["model"][table], found.tables["against"][table]):
            # specificity is drawn at random, by modes whose sign depends on the order
            assert ours == pytest.approx(others, rel=0.15 if table == "specificity" else 1e-6, abs=1e-6)
    assert found.summary["model"]["surface_mm"] == pytest.approx(found.summary["against"]["surface_mm"])


def test_sliding_points_lose(family):
    points, surfaces = family
    slid = points.copy()
    for number, own in enumerate(slid):  # each case's points turn about z by another angle, and go back to the ellipsoid
        angle = 0.15 * (-1) ** number
        unit = own / np.abs(surfaces[number].vertices).max(0)
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        slid[number] = unit @ turn.T * np.abs(surfaces[number].vertices).max(0)
    found = compare(points, slid, surfaces, [True] * 6)
    assert found.summary["model"]["variance_mm2_per_point"] < found.summary["against"]["variance_mm2_per_point"]
    assert found.summary["points_mm"]["mean"] > 0.5
    assert found.summary["points_elsewhere"] == 0


def test_as_many_points_of_each(family):
    points, surfaces = family
    found = compare(points, np.concatenate((points[:, :20], points[:, :5] * 2), axis=1), surfaces, [True, True, True, True, True, False])
    assert (found.summary["points"], found.summary["points_elsewhere"]) == (20, 5)
    assert len(found.tables["model"]["compactness"]) == len(found.tables["against"]["compactness"]) <= 4


def test_points_elsewhere_are_refused(family):
    points, surfaces = family
    with pytest.raises(ValueError, match="only 0 of the 40 points"):
        compare(points, points + 100, surfaces, [True] * 6)
