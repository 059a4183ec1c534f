from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tools.shape.procrustes import Similarity, are_mirrored, fit_similarity, generalised_procrustes, mirror


def cloud(count: int = 12) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, 3)) * [10, 6, 3] + [40, -20, 5]


def motion(seed: int, scale: float = 1.0) -> Similarity:
    generator = np.random.default_rng(seed)
    return Similarity(Rotation.random(rng=generator).as_matrix(), np.array(scale), generator.normal(size=3) * 50)


@pytest.mark.parametrize(("scale", "scaling"), [(1.0, False), (1.0, True), (1.7, True)])
def test_known_motion_is_found(scale, scaling):
    known = motion(1, scale)
    found = fit_similarity(cloud(), known.apply(cloud()), scaling)
    assert found.rotation == pytest.approx(known.rotation, abs=1e-9)
    assert found.scale == pytest.approx(scale)
    assert found.inverse().apply(known.apply(cloud())) == pytest.approx(cloud(), abs=1e-8)


def test_without_scaling_the_size_stays():
    assert fit_similarity(cloud(), 2 * cloud()).scale == 1


def test_mirror_image_needs_reflection():
    assert np.linalg.det(fit_similarity(cloud(), mirror(cloud())).rotation) == pytest.approx(1)
    found = fit_similarity(cloud(), mirror(cloud()), reflection=True)
    assert np.linalg.det(found.rotation) == pytest.approx(-1)
    assert found.apply(cloud()) == pytest.approx(mirror(cloud()), abs=1e-9)


@pytest.mark.parametrize(("thickness", "found"), [(3, True), (0.5, False)])
def test_mirror_images_are_told_unless_they_are_nearly_flat(thickness, found):
    flat = cloud() * [1, 1, thickness / 3]
    shapes = np.stack([flat, mirror(flat), motion(4).apply(mirror(flat))]) + np.random.default_rng(0).normal(size=(3, 12, 3)) * 0.2
    assert are_mirrored(shapes, flat).tolist() == [False, found, found]


def test_weight_zero_ignores_a_point():
    target = motion(2).apply(cloud())
    target[0] += 100
    weights = np.ones(12)
    weights[0] = 0
    assert fit_similarity(cloud(), target, weights=weights).rotation == pytest.approx(motion(2).rotation, abs=1e-9)


def test_batch_equals_one_by_one():
    shapes = np.stack([motion(seed).apply(cloud()) for seed in range(3)])
    batch = fit_similarity(shapes, cloud(), scaling=True)
    for number, shape in enumerate(shapes):
        assert batch.rotation[number] == pytest.approx(fit_similarity(shape, cloud(), scaling=True).rotation)


def test_fewer_than_three_points_are_refused():
    with pytest.raises(ValueError, match="M >= 3"):
        fit_similarity(cloud(2), cloud(2))


@pytest.mark.parametrize("scaling", [False, True])
def test_moved_copies_align_to_one_shape(scaling):
    shapes = np.stack([motion(seed, 1 + 0.1 * seed * scaling).apply(cloud()) for seed in range(5)])
    found = generalised_procrustes(shapes, scaling)
    assert found.aligned == pytest.approx(np.broadcast_to(found.mean, shapes.shape), abs=1e-4)
    assert found.mean.mean(0) == pytest.approx(0, abs=1e-9)
    assert found.transforms.apply(shapes) == pytest.approx(found.aligned)


def test_scaling_keeps_the_mean_size():
    shapes = np.stack([cloud(), 3 * cloud()])
    found = generalised_procrustes(shapes, scaling=True)
    sizes = [np.sqrt(((shape - shape.mean(0)) ** 2).sum()) for shape in (*shapes, found.mean)]
    assert sizes[2] == pytest.approx((sizes[0] + sizes[1]) / 2)


def test_mean_takes_the_orientation_of_the_reference():
    reference = motion(9).apply(cloud())
    found = generalised_procrustes(np.stack([motion(seed).apply(cloud()) for seed in range(4)]), reference=reference)
    assert found.mean == pytest.approx(reference - reference.mean(0), abs=1e-4)
