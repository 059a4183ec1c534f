from __future__ import annotations

import pytest
import torch
from torch import nn

from tools.data.checks import DataError
from tools.losses.anatomical_prior import AnatomicalPriorLoss
from tools.networks.mask_autoencoder import MaskAutoencoder


class Doubling(nn.Module):
    """Encodes by a factor of two."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def encode(self, masks: torch.Tensor, domain: str) -> torch.Tensor:
        return self.factor * masks


def autoencoder() -> MaskAutoencoder:
    torch.manual_seed(0)
    return MaskAutoencoder({"ankle": 3, "knee": 2}, channels=(4, 4), width=3)


def test_hand_computed():
    prediction, truth = torch.tensor([0.5, 0.0, 1.0, 0.25]).reshape(1, 1, 2, 2), torch.tensor([1.0, 0, 1, 0]).reshape(1, 1, 2, 2)
    loss = AnatomicalPriorLoss(Doubling())(prediction, truth, "knee")
    assert loss.item() == pytest.approx((1 + 0 + 0 + 0.25) / 4)


def test_zero_at_the_truth():
    masks = torch.rand(2, 3, 8, 8)
    assert AnatomicalPriorLoss(autoencoder())(masks, masks, "ankle") == 0


def test_gradients_reach_the_prediction_and_not_the_autoencoder():
    network, prediction = autoencoder(), torch.rand(2, 3, 8, 8, requires_grad=True)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    AnatomicalPriorLoss(network)(prediction, torch.rand(2, 3, 8, 8), "ankle").backward()
    assert prediction.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())


def test_runs_in_evaluation_mode_and_leaves_the_autoencoder_as_it_was():
    network, (prediction, truth) = autoencoder(), torch.rand(2, 2, 3, 8, 8)
    next(network.parameters()).requires_grad_(False)
    learning = [parameter.requires_grad for parameter in network.parameters()]
    loss = AnatomicalPriorLoss(network)(prediction, truth, "ankle")
    assert all(module.training for module in network.modules())
    assert [parameter.requires_grad for parameter in network.parameters()] == learning
    network.eval()
    expected = (network.encode(prediction, "ankle") - network.encode(truth, "ankle")).square().mean()
    torch.testing.assert_close(loss, expected.detach())


def test_is_in_no_checkpoint_and_no_list_of_parameters():
    holder = nn.Module()
    holder.prior = AnatomicalPriorLoss(autoencoder())
    assert not holder.state_dict()
    assert not list(holder.parameters())


def test_moves_with_the_loss():
    loss = AnatomicalPriorLoss(autoencoder()).to(torch.float64)
    assert {parameter.dtype for parameter in loss.autoencoder.parameters()} == {torch.float64}


def test_half_precision():
    loss, (prediction, truth) = AnatomicalPriorLoss(autoencoder()), torch.rand(2, 2, 3, 8, 8)
    expected = loss(prediction, truth, "ankle")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = loss(prediction, truth, "ankle")
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, expected, rtol=0.1, atol=1e-3)


def test_unknown_domain():
    with pytest.raises(DataError, match="unknown domain 'hip'"):
        AnatomicalPriorLoss(autoencoder())(*torch.rand(2, 1, 3, 8, 8), "hip")


def test_shapes():
    with pytest.raises(ValueError, match="prediction and truth differ in shape"):
        AnatomicalPriorLoss(autoencoder())(torch.rand(1, 3, 8, 8), torch.rand(1, 2, 8, 8), "ankle")
