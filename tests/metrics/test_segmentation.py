from __future__ import annotations

import math

import numpy as np
import pytest

from tools.metrics.segmentation import segmentation_metrics

LABELS = {0: "background", 1: "left", 2: "right"}
METRICS = ("dice", "hd95", "assd", "hd", "sensitivity", "specificity", "ravd")


def maps() -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros((5, 5, 10), np.uint8)
    truth[2, 2, 1:3], truth[2, 2, 6:8] = 1, 2
    pred = np.zeros_like(truth)
    pred[2, 2, 1:3], pred[2, 2, 7:9] = 1, 2
    return pred, truth


def test_by_hand():
    pred, truth = maps()
    row = segmentation_metrics(pred, truth, LABELS, (1.0, 1.0, 2.0))
    assert set(row) == {f"{metric}_{name}" for metric in METRICS for name in ("left", "right", "mean")} | {"dice_union"}
    assert (row["dice_left"], row["dice_right"], row["dice_mean"]) == pytest.approx((1, 0.5, 0.75))
    assert (row["hd_left"], row["hd_right"], row["hd_mean"]) == pytest.approx((0, 2, 1))
    assert row["assd_right"] == pytest.approx((2 + 0 + 0 + 2) / 4)
    assert (row["sensitivity_right"], row["specificity_right"]) == pytest.approx((0.5, 247 / 248))
    assert row["ravd_mean"] == 0
    assert row["dice_union"] == pytest.approx(2 * 3 / 8)


def test_a_missed_structure_costs_dice_and_has_no_distance():
    pred, truth = maps()
    pred[pred == 2] = 0
    row = segmentation_metrics(pred, truth, LABELS, (1.0, 1.0, 1.0))
    assert (row["dice_right"], row["sensitivity_right"], row["ravd_right"]) == (0, 0, 1)
    assert math.isnan(row["hd95_right"])
    assert (row["dice_mean"], row["hd95_mean"]) == (0.5, 0)


def test_a_structure_in_neither_map_is_left_out_of_the_mean():
    pred, truth = maps()
    row = segmentation_metrics(pred * (pred == 1), truth * (truth == 1), LABELS, (1.0, 1.0, 1.0))
    assert math.isnan(row["dice_right"])
    assert row["dice_mean"] == 1


def test_a_structure_taken_for_another_does_not_matter_to_their_union():
    pred, truth = maps()
    truth[truth == 1] = 2
    truth[2, 2, 3] = 7  # no structure of these labels
    row = segmentation_metrics(pred, truth, LABELS, (1.0, 1.0, 1.0))
    assert row["dice_union"] == pytest.approx(2 * 3 / 8)
    assert row["dice_left"] == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        segmentation_metrics(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), LABELS, (1, 1, 1))


def test_there_must_be_a_structure():
    with pytest.raises(ValueError, match="no structure"):
        segmentation_metrics(*maps(), {0: "background"}, (1, 1, 1))
