"""The segmentation network F_S over the same feature pyramid as the registration network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.utils import pixelshuffle
from torch import nn

from tools.data.checks import DataError
from tools.networks.encoders import conv_block

__all__ = ["PyramidSegmentation"]


class PyramidSegmentation(nn.Module):
    """Logits at full resolution from features at half of it, by sub-pixel convolution (Shi et al., CVPR 2016).

    The pyramid works at half resolution, where a step on a CPU costs an eighth; a few thin blocks at full resolution, which see the
    image as well, place the boundary.

    Args:
        features: feature extractor of one image (:class:`tools.networks.registration.FeaturePyramid`).
        num_classes: with the background.
        fine_channels: channels of the blocks at full resolution; as many see the image alone, and as many again the image and the pyramid.

    Raises:
        DataError: there is no block at full resolution.
    """

    def __init__(self, features: nn.Module, num_classes: int, fine_channels: Sequence[int] = (8,)) -> None:
        super().__init__()
        if not fine_channels:
            raise DataError("fine_channels must name the channels of at least one block")
        self.features = features
        channels, width = features.channels[0], fine_channels[-1]
        self.refine = conv_block(channels, channels)
        self.expand = nn.Conv3d(channels, 8 * width, 1)
        self.stem = _conv_blocks(1, fine_channels)
        self.fuse = _conv_blocks(2 * width, fine_channels)
        self.head = nn.Conv3d(width, num_classes, 1)
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image (B, 1, D, H, W) in [0, 1], sides even, to logits (B, num_classes, D, H, W)."""
        image = image.contiguous(memory_format=torch.channels_last_3d)
        upsampled = pixelshuffle(self.expand(self.refine(self.features(image)[0])), 3, 2)
        return self.head(self.fuse(torch.cat((self.stem(image), upsampled), dim=1)))


def _conv_blocks(in_channels: int, channels: Sequence[int]) -> nn.Sequential:
    """Blocks one after the other, flat: of a single one the weights are named as of :func:`conv_block`."""
    return nn.Sequential(*(layer for sizes in pairwise((in_channels, *channels)) for layer in conv_block(*sizes)))
