from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.registration.displacement import jacobian_determinant, sample
from tools.shape.augmentation import ShapeAugmentation, warp_case, warp_field
from tools.shape.distance import point_distances
from tools.shape.procrustes import fit_similarity
from tools.shape.surfaces import label_surface

SIZE, SPACING = (30, 36, 28), (1.0, 0.8, 1.2)
RADII = np.array([7.0, 9.0, 8.0])


def sphere(count: int = 200) -> np.ndarray:
    """Points spread over the unit sphere along a spiral (Fibonacci lattice), (count, 3)."""
    number = np.arange(count) + 0.5
    polar, azimuth = np.arccos(1 - 2 * number / count), np.pi * (1 + 5**0.5) * number
    return np.stack((np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)), axis=1)


def positions() -> np.ndarray:
    """Voxel centres in mm from the grid's centre, (D, H, W, 3)."""
    return np.stack(np.meshgrid(*((np.arange(n) - (n - 1) / 2) * s for n, s in zip(SIZE, SPACING)), indexing="ij"), axis=-1)


def phantom(radii: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """An ellipsoid about the grid's centre: a smooth image (1, D, H, W), and its one-hot label (2, D, H, W) with soft edges."""
    depth = (1 - np.linalg.norm(positions() / radii, axis=-1)) * radii.mean()
    inside = torch.from_numpy(np.clip(depth + 0.5, 0, 1)).float()[None]
    return torch.sigmoid(torch.from_numpy(depth).float()[None] / 3), torch.cat((1 - inside, inside))


@pytest.fixture(scope="module")
def training() -> np.ndarray:
    """60 ellipsoids whose three radii vary apart, 80 points."""
    radii = RADII * (1 + 0.1 * np.random.default_rng(0).normal(size=(60, 3)))
    return sphere(80) * radii[:, None, :]


@pytest.fixture(scope="module")
def augmentation(training) -> ShapeAugmentation:
    return ShapeAugmentation(training, SIZE, SPACING, seed=3)


def test_identity_changes_nothing():
    image, label = phantom(RADII)
    points = sphere() * RADII
    warped_image, warped_label = warp_case(image, label, warp_field(points, points, SIZE, SPACING))
    assert warped_image == pytest.approx(image, abs=1e-4)
    assert warped_label == pytest.approx(label, abs=1e-4)


def test_translation_moves_the_image_by_whole_voxels():
    image, label = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)), phantom(RADII)[1]
    points = sphere() * RADII
    warped_image, warped_label = warp_case(image, label, warp_field(points, points + np.array([2, -1, 3]) * SPACING, SIZE, SPACING))
    assert warped_image[:, 2:, :-1, 3:] == pytest.approx(image[:, :-2, 1:, :-3], abs=1e-4)
    assert warped_label[:, 2:, :-1, 3:] == pytest.approx(label[:, :-2, 1:, :-3], abs=1e-4)


def test_surface_of_the_warped_label_lies_on_the_points():
    directions = sphere(400)
    change = np.array([1.15, 0.9, 1.05]) * (1 + 0.06 * np.sin(3 * directions[:, [1]]))
    points_to = directions * RADII * change + [1.0, -0.7, 0.4]
    _, label = warp_case(*phantom(RADII), warp_field(directions * RADII, points_to, SIZE, SPACING))
    surface = label_surface((label[1] > 0.5).numpy(), np.diag([-1.0, -1.0, 1.0, 1.0]))  # in voxels
    distance = point_distances(points_to / SPACING + (np.array(SIZE) - 1) / 2, surface)
    assert distance.mean() < 0.25
    assert np.quantile(distance, 0.95) < 0.5
    before = label_surface((phantom(RADII)[1][1] > 0.5).numpy(), np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert point_distances(points_to / SPACING + (np.array(SIZE) - 1) / 2, before).mean() > 0.7  # it had some way to go


def test_field_leads_each_point_to_its_partner():
    generator = np.random.default_rng(1)
    points_from = sphere() * RADII
    points_to = points_from + 0.6 * np.sin(points_from[:, [1, 2, 0]] / 3) + generator.normal(size=3)
    ddf = warp_field(points_from, points_to, SIZE, SPACING)
    voxels = torch.from_numpy(points_to / SPACING + (np.array(SIZE) - 1) / 2).float().T.reshape(1, 3, -1, 1, 1)
    reached = points_to + sample(ddf, voxels)[0, :, :, 0, 0].T.numpy() * SPACING
    assert np.linalg.norm(reached - points_from, axis=1).mean() < 0.1


def test_far_from_the_shape_only_the_similarity_is_left():
    points = sphere() * 3
    points_to = points + 0.5 * np.sin(2 * points[:, [1, 2, 0]]) * sphere() + [1, 0, 0]
    ddf = warp_field(points, points_to, (61, 61, 61), (1, 1, 1))
    motion = fit_similarity(points_to, points, scaling=True)
    for voxel, least, most in (((0, 60, 0), 0, 1e-4), ((30, 33, 30), 0.1, 1)):
        place = np.array([voxel]) - 30.0
        rest = place[0] + ddf[(0, slice(None), *voxel)].numpy() - motion.apply(place)[0]
        assert least <= np.linalg.norm(rest) <= most


def test_samples_have_the_training_covariance_grown_by_the_bandwidth(training):
    augmentation = ShapeAugmentation(training, (13, 15, 13), (2.5, 2.5, 2.5), modes=3, bandwidth=0.5)
    drawn = np.stack([found.points for found in augmentation.sample(500)])
    scores = augmentation.model.project(drawn, 3) / augmentation.model.deviations[:3]
    assert scores.mean(0) == pytest.approx(np.zeros(3), abs=0.15)
    assert np.cov(scores.T) == pytest.approx(np.eye(3) * (1 - 1 / 60 + 0.25), abs=0.2)


def test_bandwidth_is_the_mean_distance_of_neighbours_over_the_root_of_the_modes():
    # two modes of equal variance: corners of a rectangle of 4 x 2 shapes, whitened to a square of sides 2 * sqrt(3) / 2
    base, modes = sphere(12) * 5, np.linalg.qr(np.random.default_rng(0).normal(size=(36, 2)))[0].T.reshape(2, 12, 3)
    scores = np.array([[2.0, 1.0], [2.0, -1.0], [-2.0, 1.0], [-2.0, -1.0]])
    augmentation = ShapeAugmentation(base + np.tensordot(scores, modes, axes=1), SIZE, SPACING, modes=2)
    assert augmentation.bandwidth == pytest.approx(np.sqrt(3) / np.sqrt(2))


def test_case_is_the_nearest_by_scores(augmentation):
    for found in augmentation.sample(5):
        scores = augmentation.model.project(found.points, augmentation.modes) / augmentation.model.deviations[: augmentation.modes]
        assert found.case == np.linalg.norm(augmentation.scores - scores, axis=1).argmin()


def test_residual_of_the_case_is_kept_or_left(training):
    shapes = training + np.random.default_rng(2).normal(size=training.shape) * 0.05
    for residual in (True, False):
        augmentation = ShapeAugmentation(shapes, SIZE, SPACING, modes=3, residual=residual)
        model = augmentation.model
        found = augmentation.sample(1)[0]
        left = found.points - model.reconstruct(model.project(found.points, 3))
        own = shapes[found.case] - model.reconstruct(model.project(shapes[found.case], 3))
        assert left == pytest.approx(own if residual else np.zeros_like(own), abs=1e-9)


def test_samples_depend_on_seed_and_number_alone(training, augmentation):
    first = augmentation.sample(4)
    again = ShapeAugmentation(training, SIZE, SPACING, seed=3).sample(2, first=2)
    for one, other in zip(first[2:], again):
        assert one.case == other.case
        assert (one.points == other.points).all()
    other_seed = ShapeAugmentation(training, SIZE, SPACING, seed=4).sample(1)[0]
    assert not np.allclose(first[0].points, other_seed.points)


def test_points_may_be_tensors():
    points = sphere() * RADII
    ddf = warp_field(torch.from_numpy(points), torch.from_numpy(points + 1).float(), SIZE, SPACING)
    assert ddf == pytest.approx(warp_field(points, points + 1, SIZE, SPACING), abs=1e-5)


def test_points_that_coincide_are_no_obstacle():
    points = np.concatenate((sphere(), sphere()[:1])) * RADII
    assert torch.isfinite(warp_field(points, points * 1.1, SIZE, SPACING)).all()


def rough_shapes(amount: float) -> np.ndarray:
    """Six spheres whose 50 points vary each on its own, by so many mm."""
    return sphere(50) * 8 + np.random.default_rng(0).normal(size=(6, 50, 3)) * amount


def share_of_folds(shapes: np.ndarray, **arguments) -> np.ndarray:
    found = ShapeAugmentation(shapes, SIZE, SPACING, modes=1.0, **arguments).sample(8)
    fields = torch.cat([drawn.field for drawn in found])
    assert all(torch.equal(drawn.field, warp_field(shapes[drawn.case], drawn.points, SIZE, SPACING)) for drawn in found)
    return (jacobian_determinant(fields) <= 0).double().mean((1, 2, 3)).numpy()


def test_shapes_that_fold_are_drawn_anew():
    shapes = rough_shapes(1.0)
    assert share_of_folds(shapes, folding=1.0).max() > 0.01
    assert share_of_folds(shapes, folding=0.001).max() <= 0.001
    assert share_of_folds(shapes).max() == 0


def test_shapes_that_always_fold_are_refused():
    with pytest.raises(ValueError, match="fold or leave the grid"):
        ShapeAugmentation(rough_shapes(4.0), SIZE, SPACING, modes=1.0, bandwidth=3.0).sample(1)


def test_samples_stay_in_the_grid(training):
    small = (18, 24, 15)
    half = (np.array(small) - 1) / 2 * SPACING
    inside = training[(np.abs(training) <= half).all((1, 2))]
    for found in ShapeAugmentation(inside, small, SPACING, bandwidth=1.0).sample(10):
        assert (np.abs(found.points) <= half).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": np.zeros((2, 8, 3))}, "N >= 3"),
        ({"points": np.zeros((5, 8, 2))}, r"\(N, M, 3\)"),
        ({"points": np.full((5, 8, 3), np.nan)}, "finite"),
        ({"points": np.ones((5, 8, 3))}, "all of one shape"),
        ({"size": (30, 36)}, "three sides"),
        ({"size": (30, 2, 28)}, "at least 3 voxels"),
        ({"spacing": (1, 0, 1)}, "spacing"),
        ({"modes": 0}, "modes must be"),
        ({"modes": 1.5}, "modes must be"),
        ({"modes": 60}, "modes must be"),
        ({"modes": True}, "modes must be"),
        ({"modes": "many"}, "modes must be"),
        ({"bandwidth": 0.0}, "bandwidth"),
        ({"bandwidth": "wide"}, "bandwidth"),
        ({"bandwidth": float("nan")}, "bandwidth"),
        ({"folding": -0.1}, "folding"),
    ],
)
def test_invalid_arguments(training, changes, message):
    with pytest.raises(ValueError, match=message):
        ShapeAugmentation(**{"points": training, "size": SIZE, "spacing": SPACING} | changes)


def test_negative_count_is_refused(augmentation):
    with pytest.raises(ValueError, match="count"):
        augmentation.sample(-1)


def test_label_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"label \(C, D, H, W\)"):
        warp_case(torch.zeros(1, 8, 8, 8), torch.zeros(2, 8, 8, 9), torch.zeros(1, 3, 8, 8, 8))


def test_field_of_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"field \(1, 3, D, H, W\)"):
        warp_case(torch.zeros(1, 8, 8, 8), torch.zeros(2, 8, 8, 8), torch.zeros(1, 3, 8, 8, 9))


def test_points_without_partners_are_refused():
    with pytest.raises(ValueError, match="same points"):
        warp_field(sphere(20), sphere(21), SIZE, SPACING)


def test_points_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        warp_field(sphere(20), sphere(20) * np.nan, SIZE, SPACING)
