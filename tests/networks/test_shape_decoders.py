from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.networks.shape_decoders import LinearShapeDecoder, PointAutoencoder, projection_matrix
from tools.shape.pdm import PointDistributionModel

# Four shapes of two points: the first point moves along x by +-3, the second along y by +-1, independently.
SHAPES = np.array([[[3.0 * a, 0, 0], [5, 1.0 * b, 0]] for a in (-1, 1) for b in (-1, 1)])
DEVIATIONS = np.array([3.0, 1.0]) * np.sqrt(4 / 3)


@pytest.fixture
def model() -> PointDistributionModel:
    return PointDistributionModel.fit(SHAPES)


def filled(model: PointDistributionModel, modes: int = 2) -> LinearShapeDecoder:
    decoder = LinearShapeDecoder(2, modes)
    decoder.fill(model)
    return decoder


def test_it_begins_as_the_shape_model(model):
    decoder = filled(model)
    expected = torch.tensor([[[2 * DEVIATIONS[0], 0, 0], [5, -DEVIATIONS[1], 0]]])
    torch.testing.assert_close(decoder(torch.tensor([[2.0, -1.0]])).double(), expected, atol=1e-5, rtol=0)


def test_modes_that_the_model_has_not_change_nothing(model):
    decoder = filled(model, modes=4)
    torch.testing.assert_close(decoder(torch.tensor([[0.0, 0.0, 7.0, 7.0]]))[0], torch.tensor([[0.0, 0, 0], [5, 0, 0]]), atol=1e-5, rtol=0)


def test_a_model_of_other_points(model):
    with pytest.raises(ValueError, match="3 points, got 2"):
        LinearShapeDecoder(3, 2).fill(model)


def test_frozen_it_gets_no_gradient_and_passes_it_on(model):
    decoder, scores = filled(model), torch.ones(1, 2, requires_grad=True)
    decoder(scores).sum().backward()
    assert decoder.weight.grad is None
    assert scores.grad.abs().sum() > 0
    decoder.frozen = False
    decoder(scores).sum().backward()
    assert decoder.weight.grad.abs().sum() > 0
    assert decoder.bias.grad.abs().sum() > 0


def test_projection_of_a_part_is_the_most_probable_score(model):
    """Of the first point only its x tells anything, and only of mode 1: z = d x / (d^2 + s^2)."""
    matrix = projection_matrix(filled(model), points=1, noise=0.5)
    assert matrix.shape == (2, 3)
    expected = np.zeros((2, 3))
    expected[0, 0] = DEVIATIONS[0] / (DEVIATIONS[0] ** 2 + 0.25)
    np.testing.assert_allclose(matrix.numpy(), expected, atol=1e-6)


def test_projection_of_all_points_finds_the_scores(model):
    decoder = filled(model)
    scores = torch.tensor([[0.5, -1.5]])
    offset = (decoder(scores) - decoder.mean).flatten(1)
    torch.testing.assert_close(offset @ projection_matrix(decoder, 2, noise=1e-3).T, scores, atol=1e-4, rtol=0)


def test_autoencoder_normalises(model):
    torch.manual_seed(0)
    autoencoder = PointAutoencoder(2, 3, hidden=(8, 4))
    autoencoder.fill(model)
    torch.testing.assert_close(autoencoder.mean, torch.tensor([[0.0, 0, 0], [5, 0, 0]]))
    # variance over all six numbers: (9 + 1) 4/3 / 6
    assert autoencoder.deviation.item() == pytest.approx(np.sqrt(10 * 4 / 3 / 6))
    points = torch.from_numpy(SHAPES).float()
    codes = autoencoder.encode(points)
    assert codes.shape == (4, 3)
    torch.testing.assert_close(autoencoder.decode(codes), autoencoder.mean + autoencoder.deviation * autoencoder.decoder(codes))
