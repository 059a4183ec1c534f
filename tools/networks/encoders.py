"""Feature encoders of one image: a convolutional and an attention-based one, with the same interface.

An encoder maps (B, C, D, H, W) to a list of feature maps, finest first; entry i has ``channels[i]`` channels and
ceil(size / 2**(i + 1)) voxels a side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets.swin_unetr import SwinTransformer
from torch import nn

from tools.data.checks import DataError

__all__ = ["Conv3d", "ConvEncoder", "SwinEncoder", "conv_block", "safe_convolutions"]


class Conv3d(nn.Conv3d):
    """``torch.nn.Conv3d``, in float32 where bf16 on a CPU goes wrong.

    On inputs two voxels deep oneDNN's bf16 gradient of a 3x3x3 kernel holds uninitialised memory (torch 2.13): what the deepest
    level of a network sees of an image of 32 voxels.
    """

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.device.type == "cpu" and image.shape[2] <= 2 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(image.float())
        return super().forward(image)


def safe_convolutions(network: nn.Module) -> nn.Module:
    """Make the plain convolutions of a library's network such as :class:`Conv3d`, in place; weights and their names stay."""
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = Conv3d
    return network


def conv_block(in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, instance normalisation, leaky ReLU, with "same" padding."""
    return nn.Sequential(
        Conv3d(in_channels, out_channels, kernel_size, stride, padding=(kernel_size - 1) // 2, bias=False),
        nn.InstanceNorm3d(out_channels, affine=True),
        nn.LeakyReLU(0.1, inplace=True),
    )


class ConvEncoder(nn.Module):
    """Strided convolutions; the stem goes to half resolution at once, which keeps a step affordable on a CPU.

    Args:
        in_channels: channels of the image.
        channels: channels of the levels with 1/2, 1/4, ... of the resolution.
        blocks: 3x3x3 blocks a level after the strided one.

    Raises:
        DataError: when fewer than two levels are asked for.
    """

    def __init__(self, in_channels: int = 1, channels: Sequence[int] = (32, 64, 96, 128), blocks: Sequence[int] = (1, 1, 1, 1)) -> None:
        super().__init__()
        if len(channels) < 2 or len(blocks) != len(channels):
            raise DataError(f"channels and blocks need one entry for each of at least two levels, got {channels} and {blocks}")
        self.channels = tuple(channels)
        self.levels = nn.ModuleList()
        previous = in_channels
        for i, (c, n) in enumerate(zip(channels, blocks)):
            first = conv_block(previous, c, 5 if i == 0 else 3, stride=2)
            self.levels.append(nn.Sequential(first, *(conv_block(c, c) for _ in range(n))))
            previous = c

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for level in self.levels:
            image = level(image)
            features.append(image)
        return features


class SwinEncoder(nn.Module):
    """MONAI's shifted-window transformer (Liu et al., ICCV 2021; SwinUNETR's encoder) with 2x2x2 patches.

    Args:
        in_channels: channels of the image.
        embed_dim: channels at half resolution; each further level has twice as many.
        levels: feature maps wanted, 2 to 4; level i (from 0) lies behind 2 i transformer blocks.
        head_dim: channels of an attention head.
        window_size: side of the attention window in tokens.
    """

    def __init__(self, in_channels: int = 1, embed_dim: int = 32, levels: int = 4, head_dim: int = 16, window_size: int = 4) -> None:
        super().__init__()
        if not 2 <= levels <= 4:
            raise DataError(f"levels must be 2 to 4, got {levels}")
        self.channels = tuple(embed_dim * 2**i for i in range(levels))
        self.transformer = SwinTransformer(
            in_chans=in_channels,
            embed_dim=embed_dim,
            window_size=(window_size,) * 3,
            patch_size=(2, 2, 2),
            depths=(2,) * (levels - 1) + (0,) * (5 - levels),
            num_heads=[max(1, c // head_dim) for c in (*self.channels, *self.channels)][:4],
            spatial_dims=3,
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return self.transformer(image)[: len(self.channels)]
