"""From an image to what the heads of a shape network need: a vector of the whole image, feature maps, and segmentation logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.utils import pixelshuffle
from torch import nn

from tools.networks.segmentation import PyramidSegmentation

__all__ = ["DeepSSMBackbone", "PyramidBackbone", "ShapeFeatures"]


class ShapeFeatures(NamedTuple):
    """What a backbone makes of an image.

    vector: (B, G), of the whole image.
    maps: (B, C_i, d_i, h_i, w_i) each; the backbone's ``grids`` say where their voxels lie, see
        :func:`tools.networks.shape_heads.sample_around`.
    logits: (B, num_classes, D, H, W).
    """

    vector: torch.Tensor
    maps: list[torch.Tensor]
    logits: torch.Tensor


class PyramidBackbone(nn.Module):
    """The pyramid segmentation network: its deepest level becomes the vector, its decoder the maps.

    Args:
        segmentation: the network, over a feature pyramid.
        size: grid of the images, voxels, multiples of 16.
        vector_channels: G.
        squeeze: channels that the deepest level is reduced to before it is flattened.
    """

    def __init__(self, segmentation: PyramidSegmentation, size: Sequence[int], vector_channels: int = 256, squeeze: int = 32) -> None:
        super().__init__()
        self.segmentation = segmentation
        channels = segmentation.features.channels
        self.vector_channels, self.map_channels = vector_channels, 1 + sum(channels[:2])
        self.grids = ((1, 0), (2, 0), (4, 0))  # a strided convolution is centred on every second voxel
        deepest = [-(-n // 2 ** len(channels)) for n in size]
        self.vector = nn.Sequential(
            nn.Conv3d(channels[-1], squeeze, 1),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(squeeze * deepest[0] * deepest[1] * deepest[2], vector_channels),
            nn.LeakyReLU(0.1),
        )

    def forward(self, image: torch.Tensor) -> ShapeFeatures:
        """Image (B, 1, D, H, W) in [0, 1]. Maps: the image, and features at half and a quarter of the resolution.

        No features at full resolution: the gradient of every sampling fills a volume of them, which would make a step much dearer.
        """
        network = self.segmentation
        image = image.contiguous(memory_format=torch.channels_last_3d)
        levels = network.features(image)
        half = network.refine(levels[0])
        fine = network.fuse(torch.cat((network.stem(image), pixelshuffle(network.expand(half), 3, 2)), dim=1))
        return ShapeFeatures(self.vector(levels[-1]), [image, half, levels[1]], network.head(fine))


class DeepSSMBackbone(nn.Module):
    """The encoder of DeepSSM (Bhalodia et al., Medical Image Analysis 2024; ShapeWorks), its convolutions padded: no image is too small.

    5x5x5 convolutions with batch normalisation and PReLU, pooling after the first, third and fifth; two fully connected layers. The
    logits are ours: a linear layer on the last map.

    Args:
        size: grid of the images, voxels, multiples of 8.
        num_classes: with the background.
        channels: of the five convolutions.
        hidden, vector_channels: of the fully connected layers.
    """

    def __init__(
        self,
        size: Sequence[int],
        num_classes: int,
        channels: Sequence[int] = (12, 24, 48, 96, 192),
        hidden: int = 384,
        vector_channels: int = 96,
    ) -> None:
        super().__init__()
        if len(channels) != 5:
            raise ValueError(f"channels must be five numbers, got {list(channels)}")

        def block(before: int, after: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv3d(before, after, 5, padding=2), nn.BatchNorm3d(after), nn.PReLU())

        a, b, c, d, e = channels
        self.stem, self.middle = block(1, a), nn.Sequential(block(a, b), block(b, c))
        self.deep, self.pool = nn.Sequential(block(c, d), block(d, e)), nn.MaxPool3d(2)
        self.vector_channels, self.map_channels = vector_channels, c + e
        self.grids = ((2, 0.5), (4, 1.5))  # pooling lies between the voxels
        self.vector = nn.Sequential(
            nn.Flatten(),
            nn.Linear(e * (size[0] // 8) * (size[1] // 8) * (size[2] // 8), hidden),
            nn.PReLU(),
            nn.Linear(hidden, vector_channels),
            nn.PReLU(),
        )
        self.head = nn.Conv3d(e, num_classes, 1)
        self.to(memory_format=torch.channels_last_3d)

    def forward(self, image: torch.Tensor) -> ShapeFeatures:
        """Image (B, 1, D, H, W) in [0, 1]. Maps: half and a quarter of the resolution."""
        size = image.shape[2:]
        half = self.middle(self.pool(self.stem(image.contiguous(memory_format=torch.channels_last_3d))))
        quarter = self.deep(self.pool(half))
        logits = F.interpolate(self.head(quarter), size=size, mode="trilinear", align_corners=False)  # as grids
        return ShapeFeatures(self.vector(self.pool(quarter)), [half, quarter], logits)
