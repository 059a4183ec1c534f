from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import pyvista
from pears import moved, pear

from tools.data.phantoms import make_phantom
from tools.shape import correspondence
from tools.shape.correspondence import correspond, medoid
from tools.shape.distance import point_distances, warp_weights
from tools.shape.distance_maps import DistanceMapRegistration, signed_distance_map
from tools.shape.icp import place
from tools.shape.splines import SplineRegistration, Target
from tools.shape.surfaces import from_polydata, label_surface

FAMILY = [pear(18 + a, 9 + b, 7 - a / 4, 0.25 + c) for a, b, c in ((0, 0, 0), (2, 0.5, 0.05), (-2, 1, 0), (1, -1, -0.05), (-1, -0.5, 0.05))]


@pytest.fixture(scope="module")
def found():
    return correspond([moved(shape, 12, seed) for seed, shape in enumerate(FAMILY)], 48, controls=128)


def test_points_lie_on_the_surfaces(found):
    assert found.points.shape == (5, 48, 3)
    for seed, (points, shape) in enumerate(zip(found.points, FAMILY)):
        assert point_distances(points, moved(shape, 12, seed)).max() < 1e-3
    assert (found.residuals < 0.3).all()


def test_points_correspond(found):
    """Every shape's points, brought to the first by the vertices they share, must coincide."""
    first = found.points[0]
    for seed in range(1, 5):
        vertices = moved(FAMILY[seed], 12, seed).vertices[::3], moved(FAMILY[0], 12, 0).vertices[::3]
        carried = warp_weights(vertices[0], found.points[seed]) @ vertices[1]
        assert np.linalg.norm(carried - first, axis=1).mean() < 0.9  # of 36 mm length


def test_template_points_are_vertices_of_the_template(found):
    assert np.isin(found.template_points[:, 0], found.template.vertices[:, 0]).all()


def test_shapes_left_out_leave_no_trace():
    shapes = [moved(shape, 12, seed) for seed, shape in enumerate(FAMILY)]
    odd = moved(pear(30, 5, 5), 12, 9)
    options = {"count": 24, "refinements": 1, "controls": 64}
    without = correspond(shapes[:3], **options)
    beside = correspond([shapes[0], odd, *shapes[1:3]], training=[True, False, True, True], **options)
    assert beside.template.vertices == pytest.approx(without.template.vertices)
    assert beside.points[[0, 2, 3]] == pytest.approx(without.points, abs=1e-9)


def test_medoid_is_the_one_in_the_middle():
    assert medoid([pear(10), pear(18), pear(19), pear(17), pear(40)]) == 1


def test_placing_finds_a_shape_turned_round():
    shape = pear()
    other = moved(shape, 150, 4)
    assert np.linalg.norm(place(shape.vertices, other).apply(shape.vertices) - other.vertices, axis=1).mean() < 0.5
    assert np.linalg.norm(place(shape.vertices, other, turn=False).apply(shape.vertices) - other.vertices, axis=1).mean() > 5


@pytest.mark.parametrize(("count", "shapes", "message"), [(16, 2, "at least three"), (900, 3, "642 vertices, too few for 900")])
def test_impossible_requests(count, shapes, message):
    with pytest.raises(ValueError, match=message):
        correspond(FAMILY[:shapes], count)


def test_distance_maps_do_the_same_by_a_field():
    template, target = pear(bend=0.1), moved(pear(20, 9.5, 6.5, 0.3), 8, 1)
    placed = place(template.vertices, target).apply(template.vertices)
    vertices = DistanceMapRegistration(template, controls=64, resolution=24, iterations=25).fit(Target(target))
    assert point_distances(vertices, target).mean() < 0.6 * point_distances(placed, target).mean()


def test_correspondences_by_distance_maps(monkeypatch):
    monkeypatch.setattr(correspondence, "DistanceMapRegistration", partial(DistanceMapRegistration, resolution=20, iterations=20))
    shapes = [moved(shape, 12, seed) for seed, shape in enumerate(FAMILY[:3])]
    found = correspond(shapes, 24, refinements=1, controls=64, registration="distance_maps")
    assert (found.residuals < 0.5).all()
    vertices = shapes[1].vertices[::3], shapes[0].vertices[::3]
    carried = warp_weights(vertices[0], found.points[1]) @ vertices[1]
    assert np.linalg.norm(carried - found.points[0], axis=1).mean() < 1.5  # of 36 mm length


@pytest.mark.parametrize(("option", "message"), [({"registration": "guess"}, "must be one of splines"), ({"share": 0}, "share must be")])
def test_unknown_ways(option, message):
    with pytest.raises(ValueError, match=message):
        correspond(FAMILY, 16, **option)


def test_signed_distance_is_negative_inside():
    ball = from_polydata(pyvista.Icosphere(radius=10.0, nsub=4))
    points = np.array([[0.0, 0, 0], [9, 0, 0], [0, 11.5, 0], [30, 0, 0]])
    assert signed_distance_map(ball, points, 5.0) == pytest.approx([-5, -1, 1.5, 5], abs=0.1)


def test_softer_splines_come_nearer():
    target = Target(moved(FAMILY[1], 5, 2))
    errors = []
    for stiffness in ((1.0,), (1.0, 0.01, 0.0003)):
        vertices = SplineRegistration(pear(bend=0.1), 128, stiffness, steps=6).fit(target)
        errors.append(point_distances(vertices, target.surface).mean())
    assert errors[1] < 0.5 * errors[0]


def test_true_points_of_phantoms_are_carried_to_each_other():
    """The talus of four ankles: true points of one, carried by the correspondences found, against the true points of the others."""
    phantoms = [make_phantom("ankle", seed=5, case_index=k, size=(40, 54, 40), points=300) for k in range(4)]
    surfaces = [label_surface(phantom.label, phantom.affine, 3) for phantom in phantoms]
    found = correspond(surfaces, 128, controls=200, turn=False)
    true = [phantom.points[phantom.point_labels == 3] * [-1, -1, 1] for phantom in phantoms]
    errors = [
        np.linalg.norm(warp_weights(found.points[0], true[0]) @ points - other, axis=1).mean()
        for points, other in zip(found.points[1:], true[1:])
    ]
    print(f"mean error per point {np.mean(errors):.2f} mm, voxels of {phantoms[0].affine[0, 0]:.2f} mm")
    assert np.mean(errors) < 1.5 * phantoms[0].affine[0, 0]
