from __future__ import annotations

import math

import numpy as np
import pytest

from tools.metrics.structures import dice, foreground, hausdorff, mean_of, rate, surface_distance, volume_difference

SHAPE = (6, 6, 8)


def mask(*voxels: tuple[int, int, int]) -> np.ndarray:
    array = np.zeros(SHAPE, dtype=bool)
    for voxel in voxels:
        array[voxel] = True
    return array


EMPTY, FULL, A = mask(), np.ones(SHAPE, dtype=bool), mask((1, 1, 1), (1, 1, 2))


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [
        (A, A, 1.0),
        (A, mask((1, 1, 2), (1, 1, 3), (1, 1, 4)), 2 / 5),
        (A, mask((5, 5, 5)), 0.0),
        (A, EMPTY, 0.0),
        (EMPTY, A, 0.0),
        (EMPTY, EMPTY, math.nan),
    ],
)
def test_dice(pred, truth, expected):
    assert dice(pred, truth) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("pred", "truth", "spacing", "expected"),
    [
        (mask((1, 1, 1)), mask((1, 1, 4)), (1.0, 1.0, 1.0), 3.0),
        (mask((1, 1, 1)), mask((1, 1, 4)), (1.0, 1.0, 2.5), 7.5),
        (mask((1, 1, 1)), mask((4, 5, 1)), (1.0, 1.0, 9.0), 5.0),
        (A, A, (1.0, 2.0, 3.0), 0.0),
        (A, EMPTY, (1.0, 1.0, 1.0), math.nan),
        (EMPTY, A, (1.0, 1.0, 1.0), math.nan),
    ],
)
def test_distances_are_in_mm(pred, truth, spacing, expected):
    assert hausdorff(pred, truth, spacing) == pytest.approx(expected, nan_ok=True)
    assert hausdorff(pred, truth, spacing, percentile=95) == pytest.approx(expected, nan_ok=True)
    assert surface_distance(pred, truth, spacing) == pytest.approx(expected, nan_ok=True)


def test_average_maximum_and_percentile_differ():
    # from A to B: 0, 1; from B to A: 0, 4, so the sums over both directions are 5 over 4 points
    pred, truth = mask((1, 1, 1), (1, 1, 2)), mask((1, 1, 1), (1, 1, 6))
    assert hausdorff(pred, truth, (1, 1, 1)) == 4
    assert hausdorff(pred, truth, (1, 1, 1), percentile=50) == 2
    assert surface_distance(pred, truth, (1, 1, 1)) == pytest.approx(5 / 4)


@pytest.mark.parametrize(
    ("name", "pred", "truth", "expected"),
    [
        ("sensitivity", mask((1, 1, 1), (0, 0, 0)), mask((1, 1, 1), (1, 1, 2), (1, 1, 3)), 1 / 3),
        ("specificity", mask((1, 1, 1), (0, 0, 0)), mask((1, 1, 1)), 1 - 1 / (np.prod(SHAPE) - 1)),
        ("sensitivity", EMPTY, A, 0.0),
        ("sensitivity", A, EMPTY, math.nan),
        ("specificity", A, FULL, math.nan),
        ("specificity", EMPTY, EMPTY, 1.0),
    ],
)
def test_rates(name, pred, truth, expected):
    assert rate(name, pred, truth) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [(A, mask((0, 0, 0)), 1.0), (mask((0, 0, 0)), A, 0.5), (EMPTY, A, 1.0), (A, A, 0.0), (A, EMPTY, math.nan)],
)
def test_volume_difference(pred, truth, expected):
    assert volume_difference(pred, truth) == pytest.approx(expected, nan_ok=True)


def test_mean_leaves_out_what_is_not_defined():
    assert mean_of([1.0, math.nan, 3.0]) == 2
    assert math.isnan(mean_of([math.nan]))


def test_foreground():
    assert foreground({0: "background", 2: "bone"}) == {2: "bone"}
