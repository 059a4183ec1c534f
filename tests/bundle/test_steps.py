from __future__ import annotations

import pytest
import torch
from torch import nn

from tools.bundle.steps import mean_over_processes, optimise, processes, seeded_generator
from tools.data.checks import DataError


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


def advance(network: nn.Module, loss: torch.Tensor, max_norm: float, **options) -> dict[str, float]:
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    scaler = options.pop("scaler", None) or torch.amp.GradScaler("cpu", enabled=False)
    return optimise(network, optimizer, scaler, {"loss": loss, "part": loss / 4}, max_norm, 6, **options)


@pytest.fixture
def network() -> nn.Linear:
    made = nn.Linear(1, 1, bias=False)
    nn.init.ones_(made.weight)
    return made


@pytest.mark.parametrize(("max_norm", "expected"), [(100.0, -3.0), (1.5, -0.5)])
def test_a_step_is_clipped(network, max_norm, expected):
    seen = []
    values = advance(network, network(torch.tensor([[4.0]])).sum(), max_norm, share=lambda: seen.append(network.weight.grad.item()))
    assert seen == [4.0]
    assert network.weight.item() == pytest.approx(expected, abs=1e-5)
    assert values == {"loss": 4.0, "part": 1.0}


def test_a_loss_that_is_lost(network):
    with pytest.raises(DataError, match="step 7: not finite any more: gradient, loss, part; .*--precision float32"):
        advance(network, network(torch.tensor([[torch.nan]])).sum(), 1.0)


def test_a_gradient_that_is_lost(network):
    # The root's slope at 0 is infinite.
    with pytest.raises(DataError, match="step 7: not finite any more: gradient; "):
        advance(network, (network(torch.tensor([[1.0]])).sum() - 1).sqrt(), 1.0)


def test_in_fp16_a_lost_step_is_left_out_until_the_scale_is_gone(network):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    lost = torch.tensor([[torch.nan]])
    assert not torch.tensor(advance(network, network(lost).sum(), 1.0, scaler=scaler)["loss"]).isfinite()
    assert network.weight.item() == 1.0
    assert scaler.get_scale() == 1.0
    with pytest.raises(DataError, match="step 7: not finite"):
        advance(network, network(lost).sum(), 1.0, scaler=scaler)
