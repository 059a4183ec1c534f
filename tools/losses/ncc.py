"""Normalised cross-correlation, global and local, as dissimilarities to be minimised."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tools.data.checks import DataError

__all__ = ["GlobalNCCLoss", "LocalNCCLoss"]


def _check_pair(pred: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if pred.shape != target.shape:
        raise ValueError(f"pred and target differ in shape: {tuple(pred.shape)} and {tuple(target.shape)}")
    if pred.ndim != 5:
        raise ValueError(f"expected (B, C, D, H, W), got {tuple(pred.shape)}")
    dtype = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
    return pred.to(dtype), target.to(dtype)


class GlobalNCCLoss(nn.Module):
    """1 - NCC over the whole image, averaged over batch and channels (Xu & Niethammer, MICCAI 2019, image similarity).

    Inputs are (B, C, D, H, W) of any intensity unit; the value is in [0, 2] and invariant to a positive affine change
    of either image's intensities while the product of their standard deviations stays well above ``eps``. A constant
    image has NCC 0 with anything.
    """

    def __init__(self, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """pred, target: (B, C, D, H, W). Returns a scalar. Raises ValueError when the shapes differ or are not 5-D."""
        p, t = _check_pair(pred, target)
        dims = (2, 3, 4)
        p, t = p - p.mean(dims, keepdim=True), t - t.mean(dims, keepdim=True)
        covariance = (p * t).mean(dims)
        variance = (p * p).mean(dims) * (t * t).mean(dims)
        return (1 - covariance / (variance + self.eps**2).sqrt()).mean()


def _window_sum(x: torch.Tensor, size: int, axis: int) -> torch.Tensor:
    """Sum over ``size`` neighbours along an axis, whole windows only, by doubling (1, 2, 4, ... are shared partial sums).

    A running sum (cumsum) would cost as little but carries the rounding of the whole line into every window, which in
    float32 drowns the variance of flat windows.
    """
    length = x.shape[axis] - size + 1
    total, offset, width = None, 0, 1
    while True:
        if size & width:
            part = x.narrow(axis, offset, length)
            total = part if total is None else total + part
            offset += width
        if 2 * width > size:
            return total
        shifted = x.shape[axis] - width
        x = x.narrow(axis, 0, shifted) + x.narrow(axis, width, shifted)
        width *= 2


def _box_sum(x: torch.Tensor, size: int) -> torch.Tensor:
    """Sum over a cube of ``size`` voxels a side around each voxel, zeros outside: (B, C, D, H, W) to the same shape."""
    for axis in (2, 3, 4):
        x = _window_sum(F.pad(x, [0, 0] * (4 - axis) + [size // 2, size // 2]), size, axis)
    return x


class _LocalSquaredNCC(torch.autograd.Function):
    """Mean local squared NCC with its gradient written out: three box sums backward instead of five and no intermediates.

    With c the window's covariance and V, W the variances of p and t (all times n), the derivative of c^2 / (V W) by p_i is
    2c / (V W) (t_i - mean t) - 2 c^2 / (V^2 W) (p_i - mean p), summed over the windows that hold i.
    """

    @staticmethod
    def forward(ctx, p, t, size, smooth_nr, smooth_dr):
        n, pad, inner = size**3, [size // 2] * 6, slice(size // 2, -(size // 2) or None)
        # NCC does not feel a shift of intensities, float32 does, and least of all where the background, mostly the darkest, becomes an
        # exact zero; padding first keeps "zero outside" zero
        p_pad = F.pad(p, pad) - p.amin((2, 3, 4), keepdim=True)
        t_pad = F.pad(t, pad) - t.amin((2, 3, 4), keepdim=True)
        sums = torch.cat((p_pad, t_pad, p_pad * p_pad, t_pad * t_pad, p_pad * t_pad), dim=1)
        for axis in (2, 3, 4):
            sums = _window_sum(sums, size, axis)
        p_sum, t_sum, p2_sum, t2_sum, pt_sum = sums.chunk(5, dim=1)
        cross = pt_sum - p_sum * t_sum / n
        p_var, t_var = p2_sum - p_sum * p_sum / n, t2_sum - t_sum * t_sum / n
        # In a window of one intensity, such as a padded border, variance and covariance are the rounding of their terms and nothing else.
        rounding = 16 * torch.finfo(p.dtype).eps
        cross.masked_fill_((p_var <= rounding * p2_sum) | (t_var <= rounding * t2_sum), 0)
        p_var.clamp_min_(smooth_dr)
        t_var.clamp_min_(smooth_dr)
        centre = (..., inner, inner, inner)
        ctx.save_for_backward(p_pad[centre], t_pad[centre], p_sum, t_sum, cross, p_var, t_var)
        ctx.size, ctx.smooth_nr, ctx.smooth_dr = size, smooth_nr, smooth_dr
        return ((cross * cross + smooth_nr) / (p_var * t_var)).mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        p, t, p_sum, t_sum, cross, p_var, t_var = ctx.saved_tensors
        n, weight = ctx.size**3, 2 / (p_var * t_var * p.numel())
        by_cross, numerator = weight * cross, weight * (cross * cross + ctx.smooth_nr)

        def derivative(a, b, a_sum, b_sum, a_var):
            by_var = numerator / a_var * (a_var > ctx.smooth_dr)
            terms = torch.cat((by_cross, by_var, by_cross * b_sum - by_var * a_sum), dim=1)
            cross_box, var_box, mean_box = _box_sum(terms, ctx.size).chunk(3, 1)
            return grad * (b * cross_box - a * var_box - mean_box / n)

        p_grad = derivative(p, t, p_sum, t_sum, p_var) if ctx.needs_input_grad[0] else None
        t_grad = derivative(t, p, t_sum, p_sum, t_var) if ctx.needs_input_grad[1] else None
        return p_grad, t_grad, None, None, None


class LocalNCCLoss(nn.Module):
    """Negative squared local normalised cross-correlation with a cubic window (Avants et al., Med. Image Anal. 2008).

    The same quantity as MONAI's ``LocalNormalizedCrossCorrelationLoss(kernel_type="rectangular")``, zeros outside the
    image included, with window sums by doubling and an analytic gradient (speed side by side: ``python -m tools
    benchmark deepatlas``). Computed in float32 or better whatever the input's dtype; differentiable once.

    Args:
        kernel_size: side of the window in voxels, odd.
        smooth_nr: added to the numerator.
        smooth_dr: lower bound of a window's sum of squared deviations.

    Raises:
        DataError: when ``kernel_size`` is no odd, positive whole number.
    """

    def __init__(self, kernel_size: int = 7, smooth_nr: float = 0.0, smooth_dr: float = 1e-5) -> None:
        super().__init__()
        if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
            raise DataError(f"kernel_size must be an odd, positive whole number, not {kernel_size!r}")
        self.kernel_size, self.smooth_nr, self.smooth_dr = kernel_size, smooth_nr, smooth_dr

    def forward(self, pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """pred, target: (B, C, D, H, W). Returns a scalar in [-1, 0]. Raises ValueError when the shapes differ or are not 5-D."""
        p, t = _check_pair(pred, target)
        return -_LocalSquaredNCC.apply(p, t, self.kernel_size, self.smooth_nr, self.smooth_dr)
