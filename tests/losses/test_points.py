from __future__ import annotations

import math

import pytest
import torch

from tools.losses.points import PointLoss, ProgressivePointLoss, expected_error_loss

TRUE = torch.zeros(1, 2, 3)
PREDICTED = torch.tensor([[[3.0, 0.0, 0.0], [0.0, -1.0, 2.0]]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kind": "mse"}, (9 + 1 + 4) / 6),
        ({"kind": "l1"}, (3 + 1 + 2) / 6),
        # at l = c the weight is a half, elsewhere 1 / (1 + exp(a (c - l)))
        ({"kind": "focal", "a": 1.0, "c": 1.0}, (9 / (1 + math.exp(-2)) + 0.5 + 4 / (1 + math.exp(-1))) / 6),
        ({"kind": "focal", "a": 100.0, "c": 2.5}, 9 / 6),
    ],
)
def test_point_loss(options, expected):
    assert PointLoss(**options)(PREDICTED, TRUE).item() == pytest.approx(expected, rel=1e-5)


def test_an_unknown_kind():
    with pytest.raises(ValueError, match="'mse', 'focal', 'l1'"):
        PointLoss("huber")


def test_points_of_another_number():
    with pytest.raises(ValueError, match="shape"):
        PointLoss()(PREDICTED, torch.zeros(1, 3, 3))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # scale 1: steps with errors 4 and 1 of the first point; scale 2: (9 + 1 + 4) / 6
        ({}, (4 + 1) / 2 / 3 + 14 / 6),
        ({"weights": [0.5, 2.0]}, 0.5 * 5 / 6 + 2 * 14 / 6),
        ({"weights": 3}, 3 * 5 / 6 + 3 * 14 / 6),
        ({"weights": [3.0]}, 3 * 5 / 6 + 3 * 14 / 6),
        ({"deep": False}, 14 / 6),
    ],
)
def test_sum_over_scales(options, expected):
    first = [torch.tensor([[[2.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 1.0, 0.0]]])]
    parts = ProgressivePointLoss(**options)([first, [PREDICTED]], TRUE)
    assert parts.loss.item() == pytest.approx(expected)
    assert len(parts.scales) == 2


@pytest.mark.parametrize("weights", [[], [1.0, -1.0], -1, "many"])
def test_weights_out_of_range(weights):
    with pytest.raises(ValueError, match="weights"):
        ProgressivePointLoss(weights=weights)


def test_expected_error_is_least_at_the_distance_and_moves_no_point():
    predicted = PREDICTED.clone().requires_grad_()
    log_error = torch.tensor([[math.log(3.0), math.log(math.sqrt(5))]], requires_grad=True)
    loss = expected_error_loss(log_error, predicted, TRUE)
    assert loss.item() == pytest.approx((math.log(3) + 1 + math.log(5) / 2 + 1) / 2)
    loss.backward()
    assert predicted.grad is None
    assert log_error.grad.abs().max() < 1e-6
