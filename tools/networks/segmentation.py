"""The segmentation network F_S over the same feature pyramid as the registration network."""

from __future__ import annotations

import torch
from monai.networks.utils import pixelshuffle
from torch import nn

from tools.networks.encoders import conv_block

__all__ = ["PyramidSegmentation"]


class PyramidSegmentation(nn.Module):
    """Logits at full resolution from features at half of it, by sub-pixel convolution (Shi et al., CVPR 2016).

    Nearly all work is done at half resolution, where a step on a CPU costs an eighth; one thin block at full resolution, which sees
    the image as well, places the boundary.

    Args:
        features: feature extractor of one image (:class:`tools.networks.registration.FeaturePyramid`).
        num_classes: with the background.
        width: channels of the block at full resolution.
    """

    def __init__(self, features: nn.Module, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.features = features
        channels = features.channels[0]
        self.refine = conv_block(channels, channels)
        self.expand = nn.Conv3d(channels, 8 * width, 1)
        self.stem = conv_block(1, width)
        self.fuse = conv_block(2 * width, width)
        self.head = nn.Conv3d(width, num_classes, 1)
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Image (B, 1, D, H, W) in [0, 1], sides even, to logits (B, num_classes, D, H, W)."""
        image = image.contiguous(memory_format=torch.channels_last_3d)
        upsampled = pixelshuffle(self.expand(self.refine(self.features(image)[0])), 3, 2)
        return self.head(self.fuse(torch.cat((self.stem(image), upsampled), dim=1)))
