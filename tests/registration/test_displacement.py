from __future__ import annotations

import pytest
import torch

from tools.registration.displacement import (
    compose,
    identity_grid,
    integrate_velocity,
    inverse_consistency_error,
    invert,
    jacobian_determinant,
    resize_ddf,
    warp,
)

INNER = (..., slice(3, -3), slice(3, -3), slice(3, -3))


def constant(vector: tuple[float, float, float], shape: tuple[int, int, int] = (5, 6, 7)) -> torch.Tensor:
    return torch.tensor(vector).view(1, 3, 1, 1, 1).expand(1, 3, *shape).clone()


def linear(matrix: torch.Tensor, shape: tuple[int, int, int] = (15, 13, 17)) -> torch.Tensor:
    """The field u(p) = M (p - centre)."""
    centre = torch.tensor([(n - 1) / 2 for n in shape], dtype=matrix.dtype).view(1, 3, 1, 1, 1)
    grid = identity_grid(torch.empty(1, 1, *shape, dtype=matrix.dtype))
    return torch.einsum("ij,bjdhw->bidhw", matrix, grid - centre)


def smooth(seed: int = 0, size: float = 1.0, shape: tuple[int, int, int] = (16, 14, 18)) -> torch.Tensor:
    coarse = torch.randn((1, 3, 4, 4, 4), generator=torch.Generator().manual_seed(seed))
    return size * torch.nn.functional.interpolate(coarse, shape, mode="trilinear", align_corners=True)


ROW = torch.tensor([10.0, 20.0, 30.0, 40.0]).view(1, 1, 1, 1, 4)


@pytest.mark.parametrize(
    ("shift", "padding_mode", "expected"),
    [
        (0.0, "border", [10, 20, 30, 40]),
        (1.0, "border", [20, 30, 40, 40]),
        (-1.0, "border", [10, 10, 20, 30]),
        (0.5, "border", [15, 25, 35, 40]),
        (1.0, "zeros", [20, 30, 40, 0]),
        (0.5, "zeros", [15, 25, 35, 20]),
    ],
)
def test_warp_by_a_translation_along_the_last_axis(shift, padding_mode, expected):
    ddf = constant((0.0, 0.0, shift), (1, 1, 4))
    torch.testing.assert_close(warp(ROW, ddf, padding_mode=padding_mode).flatten(), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_components_follow_the_array_axes(axis):
    image = torch.rand((1, 2, 5, 6, 7), generator=torch.Generator().manual_seed(1))
    vector = [0.0, 0.0, 0.0]
    vector[axis] = 1.0
    warped = warp(image, constant(tuple(vector)))
    length = image.shape[2 + axis] - 1
    torch.testing.assert_close(warped.narrow(2 + axis, 0, length), image.narrow(2 + axis, 1, length))


def test_output_has_the_grid_of_the_field():
    image = torch.rand((1, 1, 9, 9, 9), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(warp(image, constant((2.0, 1.0, 0.0), (3, 4, 5))), image[:, :, 2:5, 1:5, 0:5])


def test_nearest_keeps_labels_and_their_dtype():
    labels = torch.randint(0, 5, (1, 1, 16, 14, 18), generator=torch.Generator().manual_seed(1))
    warped = warp(labels, smooth(size=2.0), mode="nearest")
    assert warped.dtype == torch.int64
    assert set(warped.unique().tolist()) <= set(range(5))


def test_nearest_by_hand():
    labels = torch.tensor([1, 7, 3, 4]).view(1, 1, 1, 1, 4)
    assert warp(labels, constant((0.0, 0.0, 0.6), (1, 1, 4)), mode="nearest").flatten().tolist() == [7, 3, 4, 4]


def test_warp_in_half_precision_keeps_positions_in_single():
    image = torch.arange(200.0).view(1, 1, 1, 1, 200)
    ddf = constant((0.0, 0.0, 0.25), (1, 1, 200)).bfloat16()
    torch.testing.assert_close(warp(image, ddf)[..., :-1], image[..., :-1] + 0.25)


def test_grid_made_in_inference_mode_serves_training():
    with torch.inference_mode():
        identity_grid(torch.empty(1, 1, 3, 4, 11))
    scale = torch.ones(1, requires_grad=True)
    (identity_grid(torch.empty(1, 1, 3, 4, 11)) * scale).sum().backward()
    assert scale.grad is not None


@pytest.mark.parametrize(
    ("image", "ddf", "options", "message"),
    [
        (torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 3, 2, 2, 2), {"mode": "cubic"}, "mode"),
        (torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 2, 2), {}, "expected image"),
        (torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 2, 2, 2, 2), {}, "expected image"),
    ],
)
def test_warp_refuses(image, ddf, options, message):
    with pytest.raises(ValueError, match=message):
        warp(image, ddf, **options)


def test_composed_translations_add():
    torch.testing.assert_close(compose(constant((1.0, 2.0, 0.5)), constant((0.0, -1.0, 0.25))), constant((1.0, 1.0, 0.75)))


def test_compose_applies_the_second_field_first():
    # first: u(p) = 2 p along axis 0; second: +1. (id + first)(p + 1) = 3 (p + 1), so the displacement is 2 p + 3
    shape = (6, 1, 1)
    first = identity_grid(torch.empty(1, 1, *shape)) * 2
    second = constant((1.0, 0.0, 0.0), shape)
    assert compose(first, second)[0, 0, :5, 0, 0].tolist() == [3, 5, 7, 9, 11]
    # the other order: (id + second)(3 p) = 3 p + 1, displacement 2 p + 1
    assert compose(second, first)[0, 0, :5, 0, 0].tolist() == [1, 3, 5, 7, 9]


def test_warping_twice_equals_warping_by_the_composition():
    image = smooth(seed=5)[:, :1]
    first, second = smooth(1, 0.4), smooth(2, 0.4)
    difference = warp(warp(image, first), second) - warp(image, compose(first, second))
    assert difference[INNER].abs().max() < 0.1


@pytest.mark.parametrize("steps", [0, 1, 7])
def test_exponential_of_a_constant_field_is_itself(steps):
    field = constant((0.5, -1.0, 2.0))
    torch.testing.assert_close(integrate_velocity(field, steps), field)


def test_exponential_of_a_linear_field_is_the_matrix_exponential():
    matrix = torch.tensor([[-0.2, 0.1, 0.0], [-0.1, -0.15, 0.05], [0.0, 0.02, -0.1]], dtype=torch.float64)
    expected = linear(torch.linalg.matrix_exp(matrix) - torch.eye(3, dtype=torch.float64))
    # trajectories of the inner voxels stay inside the grid; the rest is the error of (I + M / 2^n)^(2^n)
    torch.testing.assert_close(integrate_velocity(linear(matrix), 10)[INNER], expected[INNER], rtol=0, atol=2e-3)


def test_exponential_of_the_negative_velocity_is_the_inverse():
    velocity = smooth(3, 0.5)
    error = compose(integrate_velocity(velocity), integrate_velocity(-velocity))
    assert integrate_velocity(velocity)[INNER].abs().max() > 1
    assert error[INNER].abs().max() < 0.1


def test_steps_must_not_be_negative():
    with pytest.raises(ValueError, match="steps"):
        integrate_velocity(constant((0.0, 0.0, 0.0)), -1)


def test_inverse_of_a_translation():
    torch.testing.assert_close(invert(constant((1.5, -2.0, 0.25))), constant((-1.5, 2.0, -0.25)))


def test_inverse_of_a_linear_field():
    matrix = torch.tensor([[0.2, 0.1, 0.0], [0.0, 0.15, 0.05], [0.0, 0.0, 0.1]], dtype=torch.float64)
    expected = linear(torch.linalg.inv(torch.eye(3, dtype=torch.float64) + matrix) - torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(invert(linear(matrix), 40), expected, rtol=0, atol=1e-6)


def test_inverse_consistency():
    ddf = smooth(4, 0.6)
    error = inverse_consistency_error(ddf, invert(ddf))
    assert error.shape == (1,)
    assert error.item() < 0.02
    assert inverse_consistency_error(constant((3.0, 0.0, 4.0)), constant((0.0, 0.0, 0.0))).item() == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], 1.0),
        ([[1, 0, 0], [0, 0.5, 0], [0, 0, -0.5]], 1.5),
        ([[-2, 0, 0], [0, 0, 0], [0, 0, 0]], -1.0),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 0]], 0.0),
        ([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]], None),
    ],
)
def test_jacobian_of_affine_fields(matrix, expected):
    matrix = torch.tensor(matrix, dtype=torch.float64)
    if expected is None:
        expected = torch.linalg.det(torch.eye(3, dtype=torch.float64) + matrix).item()
    determinant = jacobian_determinant(linear(matrix, (4, 5, 6)))
    assert determinant.shape == (1, 2, 3, 4)
    torch.testing.assert_close(determinant, torch.full_like(determinant, expected))


def test_jacobian_needs_three_voxels_a_side():
    with pytest.raises(ValueError, match="at least 3"):
        jacobian_determinant(torch.zeros(1, 3, 5, 2, 5))


def test_resize_rescales_the_unit():
    ddf = constant((1.0, 1.0, 1.0), (5, 5, 5))
    resized = resize_ddf(ddf, (9, 5, 3))
    torch.testing.assert_close(resized, constant((2.0, 1.0, 0.5), (9, 5, 3)))


def test_resize_of_a_linear_field_and_back():
    ddf = linear(torch.tensor([[0.1, 0.2, 0.0], [0.0, -0.1, 0.0], [0.3, 0.0, 0.1]], dtype=torch.float64), (5, 7, 9))
    torch.testing.assert_close(resize_ddf(resize_ddf(ddf, (9, 13, 17)), (5, 7, 9)), ddf)
    assert resize_ddf(ddf, (5, 7, 9)) is ddf
