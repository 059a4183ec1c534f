from __future__ import annotations

import pytest
import torch
from torch import nn

from tools.bundle.steps import mean_over_processes, optimise, processes, seeded_generator


def test_seeds_stay_what_they_were():
    # Written down: another seed would make other augmentation, and resumed runs would leave their course.
    assert [seeded_generator(*numbers).initial_seed() for numbers in ((0, 0, 0), (0, 1, 0), (7, 3, 2))] == [
        7896617691693857887,
        2918264622725855778,
        8034915097316094625,
    ]


def test_one_process_keeps_its_values():
    values = torch.tensor([1.0, 2.0])
    assert processes() == 1
    assert mean_over_processes(values) is values


@pytest.mark.parametrize(("max_norm", "expected"), [(100.0, -3.0), (1.5, -0.5)])
def test_a_step_is_clipped(max_norm, expected):
    network = nn.Linear(1, 1, bias=False)
    nn.init.ones_(network.weight)
    seen = []
    optimise(
        network,
        torch.optim.SGD(network.parameters(), lr=1.0),
        torch.amp.GradScaler("cpu", enabled=False),
        network(torch.tensor([[4.0]])).sum(),
        max_norm,
        lambda: seen.append(network.weight.grad.item()),
    )
    assert seen == [4.0]
    assert network.weight.item() == pytest.approx(expected, abs=1e-5)
