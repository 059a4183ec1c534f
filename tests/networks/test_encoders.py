from __future__ import annotations

import pytest
import torch

from tools.networks.encoders import Conv3d, ConvEncoder, SwinEncoder, conv_block


@pytest.mark.parametrize(
    ("encoder", "inputs", "channels"),
    [
        (ConvEncoder(1, (4, 6, 8), (1, 0, 2)), 1, (4, 6, 8)),
        (ConvEncoder(2, (4, 6), (1, 1)), 2, (4, 6)),
        (SwinEncoder(1, embed_dim=12, levels=3, head_dim=6), 1, (12, 24, 48)),
        (SwinEncoder(2, embed_dim=12, levels=2), 2, (12, 24)),
    ],
)
@pytest.mark.parametrize("size", [(32, 16, 48), (16, 32, 32)])
def test_shapes(encoder, inputs, channels, size):
    features = encoder(torch.rand(1, inputs, *size))
    assert encoder.channels == channels
    assert [tuple(f.shape) for f in features] == [(1, c, *(n // 2 ** (i + 1) for n in size)) for i, c in enumerate(channels)]


def test_four_levels_of_attention():
    features = SwinEncoder(1, embed_dim=12, levels=4)(torch.rand(1, 1, 32, 32, 32))
    assert [f.shape[1] for f in features] == [12, 24, 48, 96]


def test_every_parameter_of_the_convolutional_encoder_learns():
    encoder = ConvEncoder(1, (4, 6), (1, 1))
    sum((f * torch.rand_like(f)).sum() for f in encoder(torch.rand(1, 1, 8, 8, 8))).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_block_keeps_the_size():
    assert conv_block(1, 3, 5)(torch.rand(1, 1, 8, 9, 10)).shape == (1, 3, 8, 9, 10)


@pytest.mark.parametrize(("channels", "blocks"), [((4,), (1,)), ((4, 8), (1,))])
def test_levels_and_blocks_must_agree(channels, blocks):
    with pytest.raises(ValueError, match="one entry for each of at least two levels"):
        ConvEncoder(1, channels, blocks)


@pytest.mark.parametrize("levels", [1, 5])
def test_levels_of_attention(levels):
    with pytest.raises(ValueError, match="levels must be 2 to 4"):
        SwinEncoder(levels=levels)


@pytest.mark.parametrize("size", [(2, 2, 2), (2, 4, 4), (4, 2, 4), (1, 2, 4), (4, 4, 4)])
def test_gradients_of_mixed_precision_at_the_deepest_level(size):
    torch.manual_seed(0)
    convolution, image = Conv3d(48, 48, 3, padding=1).to(memory_format=torch.channels_last_3d), torch.randn(2, 48, *size)
    gradients = []
    for enabled in (False, *([True] * 10)):
        convolution.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            convolution(image.contiguous(memory_format=torch.channels_last_3d)).float().square().mean().backward()
        gradients.append(convolution.weight.grad.clone())
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0], atol=0.02 * gradients[0].abs().max().item(), rtol=0)
