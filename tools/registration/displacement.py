"""The registration transformer: everything that is done to, or with, a displacement field.

One convention throughout the package: a displacement field ``ddf`` has the shape (B, 3, D, H, W), is given in voxels
of the fixed image along the array axes, and pulls back: voxel p of the fixed grid looks at p + ddf[:, :, p] of the
moving grid. Velocity fields share shape and unit. At the edge of the system the field becomes ITK's
(:mod:`tools.registration.itk_field`).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

__all__ = [
    "compose",
    "identity_grid",
    "integrate_velocity",
    "inverse_consistency_error",
    "invert",
    "jacobian_determinant",
    "resize_ddf",
    "sample",
    "warp",
]


@lru_cache(maxsize=8)
def _cached_grid(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    # a tensor born in inference mode could never enter a graph later, and this one is kept
    with torch.inference_mode(False):
        return _grid(shape, device, dtype)


def _grid(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    axes = [torch.arange(n, device=device, dtype=dtype) for n in shape]
    return torch.stack(torch.meshgrid(axes, indexing="ij"))[None]


def identity_grid(reference: torch.Tensor) -> torch.Tensor:
    """Voxel coordinates of the grid of ``reference`` (B, C, D, H, W) as a tensor (1, 3, D, H, W)."""
    dtype = reference.dtype if reference.dtype in (torch.float32, torch.float64) else torch.float32
    # in an exported graph sizes are symbols, and its tensors must not be kept for other calls
    grid = _grid if torch.compiler.is_exporting() else _cached_grid
    return grid(tuple(reference.shape[2:]), reference.device, dtype)


def warp(image: torch.Tensor, ddf: torch.Tensor, mode: str = "bilinear", padding_mode: str = "border") -> torch.Tensor:
    """Resample a moving image onto the fixed grid: output[p] = image[p + ddf[p]].

    Args:
        image: moving image or one-hot label map, (B, C, D', H', W').
        ddf: displacement in voxels, (B, 3, D, H, W); the output has its grid.
        mode: "bilinear" (trilinear interpolation) or "nearest" (label maps).
        padding_mode: "border" repeats the edge, "zeros" reads zero outside the moving image.

    Returns:
        (B, C, D, H, W) in the image's dtype.

    Raises:
        ValueError: when ``mode`` is neither "bilinear" nor "nearest", or the fields are not five-dimensional.
    """
    if image.ndim != 5 or ddf.ndim != 5 or ddf.shape[1] != 3:
        raise ValueError(f"expected image (B, C, D, H, W) and ddf (B, 3, D, H, W), got {tuple(image.shape)} and {tuple(ddf.shape)}")
    ddf = ddf.to(torch.promote_types(ddf.dtype, torch.float32))
    return sample(image, identity_grid(ddf) + ddf, mode, padding_mode)


def sample(image: torch.Tensor, position: torch.Tensor, mode: str = "bilinear", padding_mode: str = "border") -> torch.Tensor:
    """Values of an image (B, C, D', H', W') at voxel positions (B, 3, D, H, W): :func:`warp` with absolute coordinates.

    The coordinates are float32 or float64; modes, result and errors are those of :func:`warp`.
    """
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"mode must be 'bilinear' or 'nearest', got {mode!r}")
    size = torch.tensor([max(n - 1, 1) for n in image.shape[2:]], device=position.device, dtype=position.dtype)
    # grid_sample wants (x, y, z) = (W, H, D) in [-1, 1]
    grid = (position.permute(0, 2, 3, 4, 1) * (2 / size) - 1).flip(-1)
    source = image.to(grid.dtype)
    return F.grid_sample(source, grid, mode=mode, padding_mode=padding_mode, align_corners=True).to(image.dtype)


def compose(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Displacement of (id + first) o (id + second): ``second`` is applied to a fixed voxel, then ``first``.

    ``warp(warp(image, first), second)`` equals ``warp(image, compose(first, second))`` up to interpolation. Both fields
    are (B, 3, D, H, W) in voxels.
    """
    return second + warp(first, second)


def integrate_velocity(velocity: torch.Tensor, steps: int = 7) -> torch.Tensor:
    """Exponential of a stationary velocity field by scaling and squaring (Arsigny et al., MICCAI 2006).

    Args:
        velocity: (B, 3, D, H, W), voxels per unit time.
        steps: number of squarings; the field is divided by 2**steps first. 0 returns the velocity itself.

    Returns:
        displacement at time one, (B, 3, D, H, W) in voxels.

    Raises:
        ValueError: when ``steps`` is negative.
    """
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    ddf = velocity / 2**steps
    for _ in range(steps):
        ddf = compose(ddf, ddf)
    return ddf


def invert(ddf: torch.Tensor, iterations: int = 20) -> torch.Tensor:
    """Inverse displacement by the fixed-point iteration v(p) = -u(p + v(p)) (Chen et al., Med. Phys. 2008).

    Converges where the displacement's Lipschitz constant is below one, which holds for smooth fields without folds.
    Input and output are (B, 3, D, H, W) in voxels. An SVF is better inverted by integrating its negative.
    """
    inverse = -ddf
    for _ in range(iterations):
        inverse = -warp(ddf, inverse)
    return inverse


def resize_ddf(ddf: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """Resample a displacement field (B, 3, d, h, w) to another grid over the same box, rescaling its voxel unit.

    Grids share their corner voxel centres (``align_corners=True``), as in :func:`warp`.
    """
    if tuple(ddf.shape[2:]) == tuple(size):
        return ddf
    scale = [(new - 1) / max(old - 1, 1) for new, old in zip(size, ddf.shape[2:])]
    factor = torch.tensor(scale, device=ddf.device, dtype=ddf.dtype).view(1, 3, 1, 1, 1)
    return F.interpolate(ddf, size=tuple(size), mode="trilinear", align_corners=True) * factor


def jacobian_determinant(ddf: torch.Tensor) -> torch.Tensor:
    """Determinant of the Jacobian of id + ddf at the inner voxels, by central differences.

    Args:
        ddf: (B, 3, D, H, W) in voxels.

    Returns:
        (B, D - 2, H - 2, W - 2); 1 for the identity, <= 0 where the transform folds.

    Raises:
        ValueError: when a side has fewer than three voxels.
    """
    if min(ddf.shape[2:]) < 3:
        raise ValueError(f"jacobian_determinant needs at least 3 voxels a side, got {tuple(ddf.shape[2:])}")
    inner = slice(1, -1)
    d0 = (ddf[:, :, 2:, inner, inner] - ddf[:, :, :-2, inner, inner]) / 2
    d1 = (ddf[:, :, inner, 2:, inner] - ddf[:, :, inner, :-2, inner]) / 2
    d2 = (ddf[:, :, inner, inner, 2:] - ddf[:, :, inner, inner, :-2]) / 2
    a, b, c = d0[:, 0] + 1, d1[:, 0], d2[:, 0]
    d, e, f = d0[:, 1], d1[:, 1] + 1, d2[:, 1]
    g, h, i = d0[:, 2], d1[:, 2], d2[:, 2] + 1
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def inverse_consistency_error(forward: torch.Tensor, backward: torch.Tensor) -> torch.Tensor:
    """Mean length of (id + forward) o (id + backward) - id in voxels, one value a sample: (B,).

    Christensen & Johnson, IEEE TMI 2001. ``backward`` is the field of the swapped pair.
    """
    return compose(forward, backward).norm(dim=1).mean(dim=(1, 2, 3))
