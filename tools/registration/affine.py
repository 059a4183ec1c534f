"""Affine transforms as displacement fields, and the affine that fits a displacement field best."""

from __future__ import annotations

import torch

from tools.registration.displacement import identity_grid

__all__ = ["affine_ddf", "fit_affine"]


def affine_ddf(matrix: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Displacement of p -> A p + t on the grid of ``reference``.

    Args:
        matrix: [A | t], (B, 3, 4), in voxels about the grid's centre.
        reference: any tensor (B, C, D, H, W) of the grid wanted.

    Returns:
        (B, 3, D, H, W) in voxels.
    """
    position = _centred(reference)
    linear = matrix[:, :, :3] - torch.eye(3, device=matrix.device, dtype=matrix.dtype)
    # In double precision, which autocast leaves alone: bf16 would round positions to a quarter of a voxel.
    ddf = torch.einsum("bij,jdhw->bidhw", linear.double(), position[0].double()) + matrix[:, :, 3, None, None, None]
    return ddf.to(matrix.dtype)


def fit_affine(ddf: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Weighted least-squares affine of a displacement field: min sum_p w(p) |A p + t - (p + u(p))|^2.

    Args:
        ddf: u, (B, 3, D, H, W) in voxels.
        weights: w, (B, 1, D, H, W), not negative; None weighs all voxels alike.

    Returns:
        [A | t], (B, 3, 4), in voxels about the grid's centre.
    """
    position = _centred(ddf).double().flatten(2).transpose(1, 2)  # (1, N, 3)
    design = torch.cat((position, torch.ones_like(position[..., :1])), dim=-1)
    target = position + ddf.double().flatten(2).transpose(1, 2)
    weighted = design if weights is None else design * weights.double().flatten(1)[..., None]
    normal = weighted.transpose(1, 2) @ design
    # a little of the identity keeps the system solvable where the weights leave a direction free
    ridge = 1e-6 * normal.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)[:, None, None] * torch.eye(4, device=ddf.device)
    identity = torch.eye(4, device=ddf.device, dtype=torch.float64)[:, :3]
    right = weighted.transpose(1, 2) @ target + ridge @ identity
    return torch.linalg.solve(normal + ridge, right).transpose(1, 2).to(ddf.dtype)


def _centred(reference: torch.Tensor) -> torch.Tensor:
    centre = torch.tensor([(n - 1) / 2 for n in reference.shape[2:]], device=reference.device)
    return identity_grid(reference) - centre.view(1, 3, 1, 1, 1)
