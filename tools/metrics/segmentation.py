"""Metrics of a segmentation against the truth, a flat dictionary a case."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tools.metrics.structures import dice, foreground, hausdorff, mean_of, rate, surface_distance, volume_difference

__all__ = ["segmentation_metrics"]


def segmentation_metrics(
    pred: np.ndarray, truth: np.ndarray, labels: Mapping[int, str], spacing: tuple[float, float, float]
) -> dict[str, float]:
    """Dice, sensitivity, specificity, surface distances and volume difference of every structure, and their means.

    Args:
        pred: predicted label map, (D, H, W), integers.
        truth: true label map, same grid.
        labels: label value to name; 0, the background, is left out.
        spacing: voxel size of the grid in mm.

    Returns:
        ``<metric>_<structure>`` and ``<metric>_mean`` for the metrics

        - ``dice``: NaN when the structure is in neither map, 0 when it is in one only;
        - ``hd95``, ``hd``, ``assd``: 95th percentile and maximum of the symmetric surface distance, and its average, in mm; NaN when
          the structure is missing in either map;
        - ``sensitivity``: NaN without the structure in the truth; ``specificity``: NaN when it fills the truth;
        - ``ravd``: relative absolute volume difference; NaN without the structure in the truth.

        and ``dice_union``, the Dice of all structures taken as one.

        A mean is over the structures where the metric is defined. A missed structure therefore shows in Dice, not in distances.

    Raises:
        ValueError: when the maps differ in shape or are not 3-D, or there is no structure.
    """
    if pred.shape != truth.shape or pred.ndim != 3:
        raise ValueError(f"expected two label maps (D, H, W) of one shape, got {pred.shape} and {truth.shape}")
    names = foreground(labels)
    if not names:
        raise ValueError("labels name no structure beside the background")
    metrics = {
        "dice": dice,
        "hd95": lambda p, t: hausdorff(p, t, spacing, percentile=95),
        "assd": lambda p, t: surface_distance(p, t, spacing),
        "hd": lambda p, t: hausdorff(p, t, spacing),
        "sensitivity": lambda p, t: rate("sensitivity", p, t),
        "specificity": lambda p, t: rate("specificity", p, t),
        "ravd": volume_difference,
    }
    row = {"dice_union": dice(np.isin(pred, list(names)), np.isin(truth, list(names)))}
    for key, metric in metrics.items():
        values = {name: metric(pred == value, truth == value) for value, name in names.items()}
        row |= {f"{key}_{name}": value for name, value in values.items()} | {f"{key}_mean": mean_of(list(values.values()))}
    return row
