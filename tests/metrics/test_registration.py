from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tools.metrics.registration import folding_percent, label_metrics, registration_metrics, sd_log_jacobian, target_registration_error
from tools.registration.displacement import identity_grid

LABELS = {0: "background", 1: "a", 2: "b"}


def scaled(factors: list[float]) -> torch.Tensor:
    """Displacement along axis 0 whose slope at inner voxel k + 1 is ``factors[k]`` (central differences)."""
    # u[k + 2] = u[k] + 2 slope[k], started from zeros
    u = [0.0, 0.0]
    for slope in factors:
        u.append(u[-2] + 2 * slope)
    ddf = torch.zeros(1, 3, len(u), 4, 4)
    ddf[:, 0] = torch.tensor(u).view(1, -1, 1, 1)
    return ddf


@pytest.mark.parametrize(
    ("slopes", "percent", "deviation"),
    [
        ([0.0, 0.0, 0.0, 0.0], 0.0, 0.0),
        ([0.5, 0.5, 0.5, 0.5], 0.0, 0.0),
        # determinants 1, 1, 1, -0.5
        ([0.0, 0.0, 0.0, -1.5], 25.0, np.std(np.log([4, 4, 4, 2.5]))),
        # determinants 1, 0, 2, -4: the last is clipped at 1e-9
        ([0.0, -1.0, 1.0, -5.0], 50.0, np.std(np.log([4, 3, 5, 1e-9]))),
    ],
)
def test_folding_and_sd_log_jacobian(slopes, percent, deviation):
    assert folding_percent(scaled(slopes)) == pytest.approx(percent)
    assert sd_log_jacobian(scaled(slopes)) == pytest.approx(deviation, abs=1e-6)


def test_label_metrics_by_hand():
    fixed = np.zeros((4, 4, 8), np.int16)
    fixed[1, 1, 1:3], fixed[2, 2, 1:5] = 1, 2
    warped = np.zeros_like(fixed)
    warped[1, 1, 2:4], warped[2, 2, 1:5] = 1, 2
    row = label_metrics(warped, fixed, LABELS, (1.0, 1.0, 3.0))
    assert row["dice_a"] == pytest.approx(0.5)
    assert row["dice_mean"] == pytest.approx(0.75)
    assert row["hd95_b"] == 0
    # distances in either direction are (0, 3) mm; their 95th percentile is interpolated
    assert row["hd95_a"] == pytest.approx(0.95 * 3)


@pytest.mark.parametrize(
    ("moving", "expected"),
    [
        ([[-1, -2, 5], [-2, -1, 1]], 0.0),  # where the field of (0, 0, 2) mm carries them
        ([[-1, -2, 3], [-2, -1, -1]], 2.0),  # where they were
        ([[-1, 1, 9], [-2, -1, 1]], 2.5),  # 5 mm and none
    ],
)
def test_target_registration_error_by_hand(moving, expected):
    fixed, field = np.array([[-1.0, -2, 3], [-2, -1, -1]]), np.zeros((6, 6, 6, 3))
    field[..., 2] = 2
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[2, 3] = -2
    assert target_registration_error(fixed, np.array(moving, float), field, affine) == pytest.approx(expected)


def test_target_registration_error_of_unlike_sets():
    with pytest.raises(ValueError, match="as many points in both images"):
        target_registration_error(np.zeros((3, 3)), np.zeros((2, 3)), np.zeros((4, 4, 4, 3)), np.eye(4))


def test_all_metrics_of_a_pair():
    labels = np.ones((4, 4, 4), np.uint8)
    shift = torch.zeros(1, 3, 6, 6, 6)
    shift[:, 1] = 2
    row = registration_metrics(shift, torch.zeros_like(shift), labels, labels, LABELS, (1, 1, 1))
    assert row["inverse_consistency"] == pytest.approx(2)
    assert (row["dice_a"], row["dice_mean"], row["folding_percent"], row["sd_log_jacobian"]) == (1, 1, 0, 0)
    assert math.isnan(row["dice_b"])


def test_labels_and_backward_field_are_optional():
    ddf = 0.1 * identity_grid(torch.zeros(1, 1, 4, 4, 4))
    assert set(registration_metrics(ddf)) == {"folding_percent", "sd_log_jacobian"}


def test_labels_come_together():
    with pytest.raises(ValueError, match="need warped, fixed and labels"):
        registration_metrics(torch.zeros(1, 3, 4, 4, 4), warped=np.zeros((2, 2, 2)))


def test_label_maps_must_have_one_shape():
    with pytest.raises(ValueError, match="one shape"):
        label_metrics(np.zeros((2, 2, 2)), np.zeros((2, 3, 2)), LABELS, (1, 1, 1))


def test_there_must_be_a_structure():
    with pytest.raises(ValueError, match="no structure"):
        label_metrics(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), {0: "background"}, (1, 1, 1))
