from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss

from tools.losses import AnatomyLoss


def one_hot(values: list[int], classes: int = 3) -> torch.Tensor:
    labels = torch.tensor(values)
    return torch.nn.functional.one_hot(labels, classes).float().T.reshape(1, classes, 1, 1, len(values))


TRUTH = one_hot([0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    ("values", "include_background", "expected"),
    [
        ([0, 0, 1, 1, 2, 2], False, 0.0),
        # class 1: 2 * 1 / (1 + 2); class 2: 2 * 2 / (3 + 2)
        ([0, 0, 1, 2, 2, 2], False, 1 - (2 / 3 + 4 / 5) / 2),
        ([0, 0, 1, 2, 2, 2], True, 1 - (1 + 2 / 3 + 4 / 5) / 3),
        ([0, 0, 0, 0, 0, 0], False, 1.0),
    ],
)
def test_by_hand(values, include_background, expected):
    loss = AnatomyLoss(include_background)
    assert loss(one_hot(values), TRUTH).item() == pytest.approx(expected, abs=1e-5)
    assert loss(TRUTH, one_hot(values)).item() == pytest.approx(expected, abs=1e-5)


def test_soft_maps_by_hand():
    pred = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).view(1, 2, 1, 1, 2)
    truth = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 2, 1, 1, 2)
    assert AnatomyLoss()(pred, truth).item() == pytest.approx(1 - 2 * 0.5 / (1 + 1), abs=1e-5)


def test_absent_classes_do_not_dilute_the_mean():
    pred, truth = one_hot([0, 1, 1, 0]), one_hot([0, 0, 1, 1])  # class 2 in neither
    assert AnatomyLoss()(pred, truth).item() == pytest.approx(0.5, abs=1e-5)


def test_equals_monai_when_all_classes_are_present():
    generator = torch.Generator().manual_seed(0)
    pred = torch.rand((2, 4, 5, 6, 7), generator=generator).softmax(1).requires_grad_()
    truth = torch.rand((2, 4, 5, 6, 7), generator=generator).softmax(1)
    ours, theirs = AnatomyLoss()(pred, truth), DiceLoss(include_background=False)(pred, truth)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, pred), torch.autograd.grad(theirs, pred))


def test_weights_choose_samples():
    pred, truth = torch.cat((TRUTH, one_hot([0] * 6))), torch.cat((TRUTH, TRUTH))
    loss = AnatomyLoss()
    assert loss(pred, truth).item() == pytest.approx(0.5, abs=1e-5)
    assert loss(pred, truth, torch.tensor([1.0, 0.0])).item() == pytest.approx(0.0, abs=1e-5)
    assert loss(pred, truth, torch.tensor([0, 1])).item() == pytest.approx(1.0, abs=1e-5)
    assert loss(pred, truth, torch.tensor([3.0, 1.0])).item() == pytest.approx(0.25, abs=1e-5)


def test_a_batch_switched_off_is_a_zero_with_zero_gradients():
    pred = torch.rand(2, 3, 2, 2, 2).requires_grad_()
    value = AnatomyLoss()(pred, torch.rand(2, 3, 2, 2, 2), torch.zeros(2))
    value.backward()
    assert value.item() == 0
    assert torch.equal(pred.grad, torch.zeros_like(pred))


def test_empty_maps_give_zero():
    empty = one_hot([0, 0, 0])
    assert AnatomyLoss()(empty, empty).item() == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        AnatomyLoss()(TRUTH, TRUTH[:, :2])


def test_weights_must_be_one_a_sample():
    with pytest.raises(ValueError, match="weights"):
        AnatomyLoss()(TRUTH, TRUTH, torch.ones(3))


def test_a_single_channel_leaves_no_foreground():
    with pytest.raises(ValueError, match="no class"):
        AnatomyLoss()(TRUTH[:, :1], TRUTH[:, :1])
