from __future__ import annotations

import pytest
import torch

from tools.networks.projection import MultiscaleProjection


@pytest.mark.parametrize("size", [(8, 6), (4, 6, 8)])
def test_embeddings_of_length_one(size):
    projection = MultiscaleProjection((4, 8), embedding=5, hidden=7)
    embeddings = projection([torch.rand(3, 4, *size), torch.rand(3, 8, *(n // 2 for n in size))])
    assert [tuple(z.shape) for z in embeddings] == [(3, 5), (3, 5)]
    for z in embeddings:
        torch.testing.assert_close(z.norm(dim=1), torch.ones(3))


def test_pooling_forgets_where_things_are():
    projection, image = MultiscaleProjection((2,)), torch.rand(1, 2, 4, 4)
    torch.testing.assert_close(projection([image])[0], projection([image.flip(2, 3)])[0])


def test_hand_computed():
    projection = MultiscaleProjection((2,), embedding=2)
    for layer in projection.heads[0][::2]:
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    image = torch.stack((torch.full((2, 2), 3.0), torch.tensor([[0.0, 8.0], [4.0, 4.0]])))[None]
    torch.testing.assert_close(projection([image])[0], torch.tensor([[0.6, 0.8]]))


def test_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (z,) = MultiscaleProjection((2,))([torch.rand(3, 2, 4, 4, dtype=torch.bfloat16)])
    assert z.dtype == torch.float32
    torch.testing.assert_close(z.norm(dim=1), torch.ones(3))


def test_every_parameter_learns():
    projection = MultiscaleProjection((2, 3), embedding=4)
    sum((z * torch.rand_like(z)).sum() for z in projection([torch.rand(2, 2, 4, 4), torch.rand(2, 3, 2, 2)])).backward()
    assert all(parameter.grad is not None for parameter in projection.parameters())


def test_number_of_scales():
    with pytest.raises(ValueError, match="1 feature maps for 2 scales"):
        MultiscaleProjection((2, 3))([torch.rand(1, 2, 4, 4)])


@pytest.mark.parametrize("arguments", [((),), ((2, 0),), ((2,), 0), ((2,), 4, 0)])
def test_sizes(arguments):
    with pytest.raises(ValueError, match="must be positive"):
        MultiscaleProjection(*arguments)
