from __future__ import annotations

import math

import pytest
import torch

from tools.data.augmentation import Augmentation, deform_points, rotation_matrices
from tools.registration.displacement import sample

STILL = {"rotation": 0, "scaling": 0, "translation": 0, "elastic": 0}
PLAIN = {"gamma": 0, "contrast": 0, "bias": 0, "noise": 0, "blur": 0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball(radius: float = 5.0, n: int = 24) -> torch.Tensor:
    axis = torch.arange(n) - (n - 1) / 2
    distance = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None] ** 2).sqrt()
    return torch.sigmoid(2 * (radius - distance))[None, None]


@pytest.mark.parametrize(
    ("angles", "point", "expected"),
    [
        ((math.pi / 2, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0, math.pi / 2, 0), (1, 0, 0), (0, 0, 1)),
        ((0, 0, math.pi / 2), (1, 0, 0), (0, 1, 0)),
        ((0, math.pi / 2, math.pi / 2), (1, 0, 0), (0, 1, 0)),  # the last angle turns first
    ],
)
def test_rotation_matrices(angles, point, expected):
    matrix = rotation_matrices(torch.tensor([angles]))[0]
    assert (matrix @ torch.tensor(point, dtype=torch.float32)).tolist() == pytest.approx(expected, abs=1e-6)


def test_rotations_are_rotations():
    matrix = rotation_matrices(torch.randn(5, 3))
    torch.testing.assert_close(matrix @ matrix.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(matrix), torch.ones(5))


def test_switched_off_it_changes_nothing():
    image = torch.rand(2, 1, 8, 9, 10)
    off = Augmentation(**STILL, **PLAIN)
    assert off.displacement(image, generator()).abs().max() < 1e-5
    torch.testing.assert_close(off.intensities(image, generator()), image)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({**STILL, "translation": 2.0}, 2.0),
        ({**STILL, "scaling": 0.1}, 0.1 * 7.5),
        ({**STILL, "rotation": 10.0}, 2.2 * math.radians(10) * 7.5),
    ],
)
def test_displacement_stays_within_its_limits(options, limit):
    ddf = Augmentation(**options).displacement(torch.zeros(50, 1, 16, 16, 16), generator())
    assert 0.5 * limit < ddf.abs().max() <= limit * (1 + 1e-5)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 3.0), (0.6, 3.3)])
def test_rotation_keeps_distances_on_an_anisotropic_grid(spacing):
    size = (9, 11, 13)[: len(spacing)]
    ddf = Augmentation(**STILL | {"rotation": 20}, spacing=spacing).displacement(torch.zeros(4, 1, *size), generator())
    scale = torch.tensor(spacing)
    for axis in range(len(size)):
        first, second = ([slice(None)] * 2 + [k if d == axis else size[d] // 2 for d in range(len(size))] for k in (0, size[axis] - 1))
        step = torch.zeros(len(size))
        step[axis] = size[axis] - 1
        moved = (ddf[tuple(second)] - ddf[tuple(first)] + step) * scale
        assert moved.norm(dim=1).tolist() == pytest.approx([float((step * scale).norm())] * 4, rel=1e-5)
        assert (moved - step * scale).abs().max() > 0.1


def test_scaling_is_about_the_centre_and_alike_up_and_down():
    ddf = Augmentation(**{**STILL, "scaling": 0.5}).displacement(torch.zeros(200, 1, 9, 9, 9), generator())
    assert ddf[:, :, 4, 4, 4].abs().max() < 1e-5
    factor = 1 + ddf[:, 0, 8, 4, 4] / 4
    assert 1 / 1.5 <= factor.min() < 0.75
    assert 1.4 < factor.max() <= 1.5


def test_elastic_displacement_is_smooth_and_of_its_size():
    ddf = Augmentation(**{**STILL, "elastic": 2.0}).displacement(torch.zeros(8, 1, 40, 40, 40), generator())
    assert 0.5 < ddf.std() < 2.0
    assert ddf.diff(dim=2).abs().max() < 1.5


def test_labels_move_with_the_image_and_stay_probabilities():
    image = ball()
    label = torch.cat((1 - image, image), dim=1)
    warped, moved = Augmentation().deform(image, label, generator(3))
    assert (warped - image).abs().max() > 0.2
    torch.testing.assert_close(moved[:, 1:], warped, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.sum(1), torch.ones(1, 24, 24, 24), atol=1e-5, rtol=0)


def test_the_generator_alone_decides():
    image = ball()
    augmentation = Augmentation()
    torch.manual_seed(0)
    first = augmentation.deform(image, image, generator(1))[0], augmentation.intensities(image, generator(2))
    torch.manual_seed(1)
    again = augmentation.deform(image, image, generator(1))[0], augmentation.intensities(image, generator(2))
    other = augmentation.deform(image, image, generator(5))[0], augmentation.intensities(image, generator(6))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not any(torch.equal(a, b) for a, b in zip(first, other))


def test_samples_differ():
    image = ball().repeat(2, 1, 1, 1, 1)
    warped, _ = Augmentation().deform(image, image, generator())
    assert (warped[0] - warped[1]).abs().max() > 0.1


def test_intensities_alone_leave_the_input_as_it_is():
    image = torch.rand(3, 1, 8, 8, 8)
    copy = image.clone()
    changed = Augmentation(probability=1.0).intensities(image, generator())
    assert torch.equal(image, copy)
    assert changed.shape == image.shape
    assert changed.isfinite().all()
    assert ((changed - image).abs().amax((1, 2, 3, 4)) > 0.01).all()


def test_probability_zero_changes_no_intensity():
    image = torch.rand(3, 1, 8, 8, 8)
    torch.testing.assert_close(Augmentation(probability=0.0).intensities(image, generator()), image)


@pytest.mark.parametrize(("part", "limit"), [("contrast", 0.3), ("noise", 0.05)])
def test_each_intensity_change_stays_within_its_limit(part, limit):
    image = torch.full((20, 1, 12, 12, 12), 0.5)
    changed = Augmentation(**{**PLAIN, part: limit}, probability=1.0).intensities(image, generator())
    if part == "contrast":
        assert (changed - image).abs().max() <= 0.5 * limit + limit / 5 + 1e-6
    else:
        assert (changed - image).flatten(1).std(1).max() <= limit * 1.1


def test_points_turn_against_the_field():
    """The image's voxel p looks at A p + t, so what was at q is seen at A^-1 (q - t)."""
    matrix = torch.tensor([[1.1, 0.2, 0], [-0.2, 0.9, 0], [0, 0, 1]])
    position = torch.stack(torch.meshgrid(*(torch.arange(12.0),) * 3, indexing="ij"))[None]
    ddf = torch.einsum("ij,bj...->bi...", matrix - torch.eye(3), position) + 0.5
    points = torch.tensor([[[4.0, 5, 6], [6, 6, 3]]])
    expected = (points - 0.5) @ torch.linalg.inv(matrix).T
    torch.testing.assert_close(deform_points(points, ddf), expected, atol=1e-4, rtol=0)


def test_points_move_with_the_image():
    """A point keeps the place in the anatomy: the field carries it back to where it came from."""
    augmentation = Augmentation(elastic=2.0)
    points = torch.rand(3, 40, 3) * 20 + 6
    image = ball(n=32).expand(3, 1, 32, 32, 32)
    _, _, moved = augmentation.deform_with_points(image, image, points, generator())
    ddf = augmentation.displacement(image, generator())
    back = moved + sample(ddf, moved.transpose(1, 2)[..., None, None])[..., 0, 0].transpose(1, 2)
    assert (moved - points).norm(dim=-1).mean() > 1
    torch.testing.assert_close(back, points, atol=1e-2, rtol=0)


def test_with_points_images_are_deformed_alike():
    image = torch.rand(2, 1, 16, 16, 16)
    plain = Augmentation().deform(image, image, generator())
    with_points = Augmentation().deform_with_points(image, image, torch.rand(2, 4, 3) * 15, generator())
    assert all(torch.equal(a, b) for a, b in zip(plain, with_points))
