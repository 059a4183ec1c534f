"""Metrics of a registration: agreement of the warped labels and regularity of the transform, a flat dictionary a pair."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from tools.metrics.structures import dice, foreground, hausdorff, mean_of
from tools.registration.displacement import inverse_consistency_error, jacobian_determinant
from tools.registration.fields import transform_points

__all__ = ["folding_percent", "label_metrics", "registration_metrics", "sd_log_jacobian", "target_registration_error"]


def folding_percent(ddf: torch.Tensor) -> float:
    """Share of the inner voxels with a Jacobian determinant <= 0, in percent. ``ddf``: (B, 3, D, H, W) in voxels."""
    return 100 * float((jacobian_determinant(ddf.detach().float()) <= 0).float().mean())


def sd_log_jacobian(ddf: torch.Tensor) -> float:
    """SDlogJ = std(log(clip(|J| + 3, 1e-9, 1e9))) over the inner voxels, as in the Learn2Reg challenge (Hering et al., TMI 2023).

    ``ddf``: (B, 3, D, H, W) in voxels. 0 for translations; lower is smoother.
    """
    determinant = jacobian_determinant(ddf.detach().double())
    return float((determinant + 3).clamp(1e-9, 1e9).log().std(correction=0))


def target_registration_error(fixed: np.ndarray, moving: np.ndarray, displacement: np.ndarray, field_affine: np.ndarray) -> float:
    """TRE: mean distance, mm, of where a field carries points of the fixed image to from the same points of the moving image.

    Args:
        fixed, moving: (N, 3), LPS mm; row i is the same place of the anatomy in both.
        displacement: (X, Y, Z, 3), LPS mm, as ITK has it.
        field_affine: (4, 4), voxel of the field to RAS mm.

    Raises:
        ValueError: the sets of points differ in shape.
    """
    if fixed.shape != moving.shape:
        raise ValueError(f"expected as many points in both images, got {fixed.shape} and {moving.shape}")
    return float(np.linalg.norm(transform_points(fixed, displacement, field_affine) - moving, axis=1).mean())


def label_metrics(
    warped: np.ndarray, fixed: np.ndarray, labels: Mapping[int, str], spacing: tuple[float, float, float]
) -> dict[str, float]:
    """Dice and HD95 (mm) of every structure and their means: ``dice_<structure>``, ``dice_mean``, ``hd95_<structure>``, ``hd95_mean``.

    Args:
        warped: moving label map warped with nearest neighbour, (D, H, W).
        fixed: fixed label map, same grid.
        labels: label value to name; 0, the background, is left out.
        spacing: voxel size of the grid in mm.

    Returns:
        Dice is NaN for a structure in neither map and 0 for one in a single map; HD95 is NaN in both cases. Means leave NaN out.

    Raises:
        ValueError: when the maps differ in shape or are not 3-D, or there is no structure.
    """
    if warped.shape != fixed.shape or warped.ndim != 3:
        raise ValueError(f"expected two label maps (D, H, W) of one shape, got {warped.shape} and {fixed.shape}")
    names = foreground(labels)
    if not names:
        raise ValueError("labels name no structure beside the background")
    row: dict[str, float] = {}
    for key, metric in {"dice": dice, "hd95": lambda w, f: hausdorff(w, f, spacing, percentile=95)}.items():
        values = {name: metric(warped == value, fixed == value) for value, name in names.items()}
        row |= {f"{key}_{name}": value for name, value in values.items()} | {f"{key}_mean": mean_of(list(values.values()))}
    return row


def registration_metrics(
    ddf: torch.Tensor,
    backward: torch.Tensor | None = None,
    warped: np.ndarray | None = None,
    fixed: np.ndarray | None = None,
    labels: Mapping[int, str] | None = None,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> dict[str, float]:
    """All metrics of one pair that its inputs allow.

    Args:
        ddf: displacement of the pair, (1, 3, D, H, W), voxels.
        backward: displacement of the swapped pair on the same grid, for the inverse consistency.
        warped: warped moving label map, for :func:`label_metrics`; its grid need not be that of ``ddf``.
        fixed: fixed label map.
        labels: label value to name.
        spacing: voxel size of the label maps in mm.

    Returns:
        the label metrics if labels are given; ``folding_percent``; ``sd_log_jacobian``; ``inverse_consistency`` in voxels if
        ``backward`` is given.

    Raises:
        ValueError: when only some of ``warped``, ``fixed`` and ``labels`` are given, and as in :func:`label_metrics`.
    """
    given = [value is not None for value in (warped, fixed, labels)]
    if any(given) and not all(given):
        raise ValueError("label metrics need warped, fixed and labels")
    row = label_metrics(warped, fixed, labels, spacing) if all(given) else {}
    row |= {"folding_percent": folding_percent(ddf), "sd_log_jacobian": sd_log_jacobian(ddf)}
    if backward is not None:
        row["inverse_consistency"] = float(inverse_consistency_error(ddf.detach().float(), backward.detach().float()).mean())
    return row
