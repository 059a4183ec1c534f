from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from monai.losses import LocalNormalizedCrossCorrelationLoss

from tools.data.checks import DataError
from tools.losses import GlobalNCCLoss, LocalNCCLoss


def pair(scale: float = 1.0, offset: float = 0.0, shape: tuple[int, ...] = (2, 1, 12, 10, 14)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    a, b = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)
    return offset + scale * a, offset + scale * (0.5 * a + 0.5 * b)


def monai_value_and_gradients(p: torch.Tensor, t: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    p, t = p.double().requires_grad_(), t.double().requires_grad_()
    value = LocalNormalizedCrossCorrelationLoss(kernel_size=size, kernel_type="rectangular")(p, t)
    return value.detach(), *torch.autograd.grad(value, (p, t))


LINE = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 1, 4)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (LINE, 0.0),
        (3 * LINE - 5, 0.0),
        (-LINE, 2.0),
        (torch.full_like(LINE, 7.0), 1.0),
        # deviations (-1.5, -.5, .5, 1.5) and (-.5, .5, -.5, .5): covariance 0.25, variances 1.25 and 0.25
        (torch.tensor([0.0, 1.0, 0.0, 1.0]).view_as(LINE), 1 - 0.25 / (1.25 * 0.25) ** 0.5),
    ],
)
def test_global_ncc_by_hand(target, expected):
    assert GlobalNCCLoss()(LINE, target).item() == pytest.approx(expected, abs=1e-5)


def test_global_ncc_averages_over_the_batch():
    value = GlobalNCCLoss()(torch.cat((LINE, LINE)), torch.cat((LINE, -LINE)))
    assert value.item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 11])
def test_local_ncc_equals_monai(size):
    p, t = pair()
    value, p_grad, t_grad = monai_value_and_gradients(p, t, size)
    p.requires_grad_(), t.requires_grad_()
    ours = LocalNCCLoss(size)(p, t)
    ours.backward()
    assert ours.item() == pytest.approx(value.item(), abs=1e-4)
    torch.testing.assert_close(p.grad.double(), p_grad, rtol=1e-3, atol=1e-4 * p_grad.abs().max().item() + 1e-12)
    torch.testing.assert_close(t.grad.double(), t_grad, rtol=1e-3, atol=1e-4 * t_grad.abs().max().item() + 1e-12)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1000.0), (1000.0, 0.0), (1e6, 1e6)])
def test_local_ncc_keeps_its_accuracy_at_large_intensities(scale, offset):
    p, t = pair(scale, offset)
    value, p_grad, _ = monai_value_and_gradients(p, t, 7)
    p.requires_grad_()
    ours = LocalNCCLoss(7)(p, t)
    ours.backward()
    assert ours.item() == pytest.approx(value.item(), abs=1e-4)
    torch.testing.assert_close(p.grad.double(), p_grad, rtol=1e-2, atol=1e-3 * p_grad.abs().max().item())


def test_local_ncc_has_no_noise_in_flat_background_of_a_large_volume():
    p = torch.zeros(1, 1, 160, 24, 24)
    p[:, :, 70:90, 8:16, 8:16] = torch.rand((20, 8, 8), generator=torch.Generator().manual_seed(0))
    expected, _, _ = monai_value_and_gradients(p, p, 7)
    assert LocalNCCLoss(7)(p, p).item() == pytest.approx(expected.item(), abs=1e-4)


def test_local_ncc_has_no_noise_where_both_images_are_padded():
    p, t = (F.pad(image, (9, 9) * 3) for image in pair())
    value, p_grad, t_grad = monai_value_and_gradients(p, t, 7)
    p.requires_grad_(), t.requires_grad_()
    ours = LocalNCCLoss(7)(p, t)
    ours.backward()
    assert ours.item() == pytest.approx(value.item(), abs=1e-6)
    for mine, expected in ((p.grad, p_grad), (t.grad, t_grad)):
        assert ((mine - expected).norm() / expected.norm()).item() < 1e-4


def test_local_ncc_of_an_image_with_itself_away_from_smoothing_is_minus_one():
    p, _ = pair()
    assert LocalNCCLoss(5)(p, p).item() == pytest.approx(-1, abs=1e-5)


def test_local_ncc_of_a_window_by_hand():
    # one row; the window of 3 x 3 x 3 around the middle voxel holds the row's three voxels and 24 zeros
    p = torch.tensor([1.0, 2.0, 3.0]).view(1, 1, 1, 1, 3)
    t = torch.tensor([1.0, 1.0, 0.0]).view(1, 1, 1, 1, 3)
    middle = (3 - 6 * 2 / 27) ** 2 / ((14 - 36 / 27) * (2 - 4 / 27))
    left = (3 - 3 * 2 / 27) ** 2 / ((5 - 9 / 27) * (2 - 4 / 27))
    right = (2 - 5 * 1 / 27) ** 2 / ((13 - 25 / 27) * (1 - 1 / 27))
    assert LocalNCCLoss(3)(p, t).item() == pytest.approx(-(left + middle + right) / 3, abs=1e-5)


def test_local_ncc_inside_is_invariant_to_an_affine_change_of_intensity():
    p, t = pair()
    inner = slice(None), slice(None), slice(3, -3), slice(3, -3), slice(3, -3)
    weight = torch.zeros_like(p)
    weight[inner] = 1  # zero outside in both, so that the border is the same in both images
    plain, scaled = LocalNCCLoss(3)(p * weight, t * weight), LocalNCCLoss(3)(5 * p * weight, t * weight)
    assert plain.item() == pytest.approx(scaled.item(), abs=1e-5)
    shifted_monai, _, _ = monai_value_and_gradients(2 * p + 3, t, 3)
    assert LocalNCCLoss(3)(2 * p + 3, t).item() == pytest.approx(shifted_monai.item(), abs=1e-4)


def test_local_ncc_gradient_by_finite_differences():
    p, t = pair(shape=(1, 2, 4, 5, 4))
    loss = LocalNCCLoss(3, smooth_nr=1e-3)
    assert torch.autograd.gradcheck(loss, (p.double().requires_grad_(), t.double().requires_grad_()))


def test_local_ncc_accepts_half_precision():
    p, t = pair()
    assert LocalNCCLoss(5)(p.bfloat16(), t).item() == pytest.approx(LocalNCCLoss(5)(p, t).item(), abs=5e-3)


@pytest.mark.parametrize("size", [0, -3, 4, 3.0])
def test_kernel_size_must_be_odd_and_positive(size):
    with pytest.raises(DataError, match="kernel_size must be an odd, positive whole number"):
        LocalNCCLoss(size)


@pytest.mark.parametrize("loss", [LocalNCCLoss(), GlobalNCCLoss()])
def test_shapes_must_agree(loss):
    with pytest.raises(ValueError, match="differ in shape"):
        loss(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 4, 4, 5))


@pytest.mark.parametrize("loss", [LocalNCCLoss(), GlobalNCCLoss()])
def test_volumes_must_be_five_dimensional(loss):
    with pytest.raises(ValueError, match="expected"):
        loss(torch.zeros(4, 4, 4), torch.zeros(4, 4, 4))
