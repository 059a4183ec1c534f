"""The metric that validation steers by, against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from multidomain_segmentation.validation import DomainDice, ValidationDice
from tools.data.domain_plan import DomainPlan, SlicePlan

PLAN = DomainPlan(domains={name: SlicePlan(labels={0: "background", 1: "a", 2: "b"}) for name in ("ankle", "knee")})
CASES = [("ankle", [1.0, 0.6]), ("ankle", [0.4, float("nan")]), ("knee", [0.2, 0.2])]


@pytest.mark.parametrize(("target", "expected"), [(None, 0.4), ("ankle", 0.6), ("knee", 0.2)])
def test_mean_over_domains_or_of_the_target(target, expected):
    metric = DomainDice(PLAN, target)
    assert metric.compute() == 0
    metric.update([{"dice": torch.tensor(values), "dice_domain": name} for name, values in CASES])
    assert metric.means() == pytest.approx({"ankle": 0.6, "knee": 0.2})
    assert metric.compute() == pytest.approx(expected)


def test_dice_of_a_volume():
    label = torch.tensor([[[0, 0], [1, 1]]])
    predicted = torch.tensor([[[0, 1], [1, 1]]])
    case = ValidationDice()({"pred": torch.nn.functional.one_hot(predicted, 3).movedim(-1, 0), "label": label, "domain": "knee"})
    assert case["dice"].tolist() == pytest.approx([0.8, float("nan")], nan_ok=True)
    assert case["dice_domain"] == "knee"
