from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tools.losses.contrastive import MultiscaleContrastiveLoss, SupervisedContrastiveLoss

E, E2 = math.e, math.e**2
X, Y = [1.0, 0.0], [0.0, 1.0]


@pytest.mark.parametrize(
    ("embeddings", "labels", "temperature", "expected"),
    [
        # a pair alone: the positive is all there is
        ([X, Y], [0, 0], 1.0, 0.0),
        # anchors 0 and 1: -log(e / (e + 1)); 2 has no positive
        ([X, X, Y], [0, 0, 1], 1.0, math.log((E + 1) / E)),
        # half the temperature doubles the similarities
        ([X, X, Y], [0, 0, 1], 0.5, math.log((E2 + 1) / E2)),
        # anchors 0 and 1: -log(1 / (1 + 1)) and -log(1 / (1 + e))
        ([X, Y, Y], [0, 0, 1], 1.0, (math.log(2) + math.log(1 + E)) / 2),
        # two tight classes at right angles: -log(e / (e + 2)) for all
        ([X, X, Y, Y], [0, 0, 1, 1], 1.0, math.log((E + 2) / E)),
        # two classes, each spread over both directions: -log(1 / (e + 2)) for all
        ([X, Y, X, Y], [5, 5, 7, 7], 1.0, math.log(E + 2)),
        # anchors with two positives: 0 and 1 have similarities 1 and 0, 2 has 0 and 0
        ([X, X, Y], [0, 0, 0], 1.0, (2 * (math.log(E + 1) - 0.5) + math.log(2)) / 3),
    ],
)
def test_hand_computed(embeddings, labels, temperature, expected):
    loss = SupervisedContrastiveLoss(temperature)(torch.tensor(embeddings), torch.tensor(labels))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("labels", [[0], [0, 1], [0, 1, 2]])
def test_without_positives_a_zero_in_the_graph(labels):
    embeddings = torch.rand(len(labels), 4, requires_grad=True)
    loss = SupervisedContrastiveLoss()(embeddings, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad.abs().max() == 0


def test_gradients_are_finite_and_pull_positives_together():
    torch.manual_seed(0)
    z = torch.randn(8, 4, requires_grad=True)
    labels = torch.arange(2).repeat(4)
    for _ in range(50):
        loss = SupervisedContrastiveLoss()(F.normalize(z, dim=1), labels)
        (gradient,) = torch.autograd.grad(loss, z)
        assert gradient.isfinite().all()
        z = (z - gradient).detach().requires_grad_(True)
    cosine = F.normalize(z, dim=1) @ F.normalize(z, dim=1).T
    same = labels[:, None] == labels
    assert cosine[same].min() > cosine[~same].max() + 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    torch.manual_seed(0)
    z, labels = F.normalize(torch.randn(16, 32), dim=1).to(dtype), torch.arange(4).repeat(4)
    loss = SupervisedContrastiveLoss(0.01)
    expected = loss(z.double().float(), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(z, labels), expected)


def test_scales_are_averaged():
    labels = torch.tensor([0, 0, 1])
    a, b = torch.tensor([X, X, Y]), torch.tensor([X, Y, Y])
    one = SupervisedContrastiveLoss(1.0)
    first, second = one(a, labels).item(), one(b, labels).item()
    assert MultiscaleContrastiveLoss(1.0)([a, b], labels).item() == pytest.approx((first + second) / 2)
    assert MultiscaleContrastiveLoss(1.0, (3, 1))([a, b], labels).item() == pytest.approx((3 * first + second) / 4)


@pytest.mark.parametrize("temperature", [0, -1])
def test_temperature(temperature):
    with pytest.raises(ValueError, match="temperature must be positive"):
        SupervisedContrastiveLoss(temperature)


@pytest.mark.parametrize("weights", [(0, 0), (-1, 2), ()])
def test_weights(weights):
    with pytest.raises(ValueError, match="weights must not be negative nor all zero"):
        MultiscaleContrastiveLoss(weights=weights)


@pytest.mark.parametrize(("loss", "scales"), [(MultiscaleContrastiveLoss(weights=(1, 1)), 1), (MultiscaleContrastiveLoss(), 0)])
def test_number_of_scales(loss, scales):
    with pytest.raises(ValueError, match=f"embeddings of {scales} scales"):
        loss([torch.rand(2, 2)] * scales, torch.tensor([0, 0]))


@pytest.mark.parametrize("shape", [(3, 2, 2), (4, 2)])
def test_shapes(shape):
    with pytest.raises(ValueError, match="are needed, got"):
        SupervisedContrastiveLoss()(torch.rand(shape), torch.tensor([0, 0, 1]))
