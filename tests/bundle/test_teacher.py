from __future__ import annotations

import pytest
import torch
from torch import nn

from tools.bundle.teacher import check_background_weight, most_probable, running_average
from tools.data.checks import DataError


@pytest.mark.parametrize(("buffers", "expected"), [(False, 3.0), (True, 1.5)])
def test_a_running_average(buffers, expected):
    network = nn.BatchNorm1d(1)
    average = running_average(network, 0.75, buffers)
    for value in (1.0, 3.0):
        nn.init.constant_(network.weight, value)
        network.running_mean.fill_(value)
        average.update_parameters(network)
    assert average.module.weight.item() == 1.5  # 0.75 x 1 + 0.25 x 3
    assert average.module.running_mean.item() == expected
    assert not average.training


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range(decay):
    with pytest.raises(DataError, match="teacher_decay must be at least 0 and below 1"):
        running_average(nn.Linear(1, 1), decay)


@pytest.mark.parametrize(("weight", "expected"), [(1.0, [1, 0, 2, 2]), (1.25, [0, 0, 2, 2]), (3.0, [0, 0, 0, 2])])
def test_the_background_is_weighed(weight, expected):
    probabilities = torch.tensor([[0.45, 0.48, 0.07], [0.6, 0.3, 0.1], [0.3, 0.1, 0.6], [0.1, 0.1, 0.8]])
    assert most_probable(probabilities.log().T[None], weight).tolist() == [expected]


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_a_weight_out_of_range(weight):
    with pytest.raises(DataError, match="background_weight must be positive"):
        check_background_weight(weight)
