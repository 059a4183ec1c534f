from __future__ import annotations

import pytest
import torch

from tools.networks.encoders import ConvEncoder, conv_block
from tools.networks.registration import FeaturePyramid
from tools.networks.segmentation import PyramidSegmentation

CHANNELS = (4, 6, 8)


def network(*fine_channels: int) -> PyramidSegmentation:
    torch.manual_seed(0)
    return PyramidSegmentation(FeaturePyramid(ConvEncoder(1, CHANNELS, (1, 1, 1)), CHANNELS), 3, fine_channels)


@pytest.mark.parametrize("fine_channels", [(8,), (6, 8), (4, 4, 4)])
def test_logits_lie_on_the_grid_of_the_image(fine_channels):
    assert network(*fine_channels)(torch.rand(2, 1, 16, 32, 24)).shape == (2, 3, 16, 32, 24)


def test_blocks_at_full_resolution_have_the_channels_asked_for():
    made = network(6, 8)
    assert [tuple(layer.weight.shape[:2]) for layer in made.stem if isinstance(layer, torch.nn.Conv3d)] == [(6, 1), (8, 6)]
    assert [tuple(layer.weight.shape[:2]) for layer in made.fuse if isinstance(layer, torch.nn.Conv3d)] == [(6, 16), (8, 6)]
    assert made.head.weight.shape[:2] == (3, 8)


def test_weights_of_a_single_block_keep_their_names():
    names = {name for name in network(8).state_dict() if name.startswith("stem.")}
    assert names == {f"stem.{name}" for name in conv_block(1, 8).state_dict()}


def test_every_block_learns():
    made = network(4, 4)
    made(torch.rand(1, 1, 16, 16, 16)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in made.parameters())


def test_no_block_at_full_resolution_is_refused():
    with pytest.raises(ValueError, match="at least one block"):
        network()
