"""Agreement of two binary masks of one structure, by MONAI's metrics, with a defined answer where a mask is empty.

Masks are boolean (D, H, W); distances are in the unit of ``spacing``, usually mm. NaN means "not defined for this case": such a value
is left out of means, and their ``n`` shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_confusion_matrix_metric,
    compute_dice,
    compute_hausdorff_distance,
    get_confusion_matrix,
)

__all__ = ["dice", "foreground", "hausdorff", "mean_of", "rate", "surface_distance", "volume_difference"]

NAN = float("nan")


def dice(pred: np.ndarray, truth: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|). NaN when both are empty, 0 when one is."""
    if not pred.any() and not truth.any():
        return NAN
    return float(compute_dice(_batch(pred), _batch(truth), ignore_empty=False))


def hausdorff(pred: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float], percentile: float | None = None) -> float:
    """Symmetric Hausdorff distance of the surfaces: the maximum, or the larger of both directions' percentiles. NaN when one is empty."""
    return _distance(partial(compute_hausdorff_distance, percentile=percentile), pred, truth, spacing)


def surface_distance(pred: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Average symmetric surface distance (ASSD). NaN when one is empty."""
    return _distance(partial(compute_average_surface_distance, symmetric=True), pred, truth, spacing)


def rate(name: str, pred: np.ndarray, truth: np.ndarray) -> float:
    """A rate of MONAI's confusion matrix, such as "sensitivity" or "specificity". NaN when its denominator is zero."""
    if (name == "sensitivity" and not truth.any()) or (name == "specificity" and truth.all()):
        return NAN
    return float(compute_confusion_matrix_metric(name, get_confusion_matrix(_batch(pred), _batch(truth))))


def volume_difference(pred: np.ndarray, truth: np.ndarray) -> float:
    """Relative absolute volume difference |V_pred - V_truth| / V_truth. NaN when the truth is empty."""
    volume = int(truth.sum())
    return abs(int(pred.sum()) - volume) / volume if volume else NAN


def foreground(labels: Mapping[int, str]) -> dict[int, str]:
    """The structures among a data set's labels: all but the background, 0."""
    return {value: name for value, name in labels.items() if value != 0}


def mean_of(values: list[float]) -> float:
    """Mean of the values that are defined, NaN when none is."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else NAN


def _batch(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask, dtype=np.uint8))[None, None]


def _distance(metric, pred: np.ndarray, truth: np.ndarray, spacing: tuple[float, float, float]) -> float:
    if not pred.any() or not truth.any():
        return NAN
    return float(metric(_batch(pred), _batch(truth), include_background=True, spacing=list(map(float, spacing))))
