"""Encoders of 2D images for a U-Net, with batch normalisation throughout: a plain one, and MONAI's ResNets with ImageNet weights.

An encoder maps (B, 1, H, W) to a list of feature maps, finest first; entry i has ``channels[i]`` channels and 1/``strides[i]`` of the
image's size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from monai.networks.nets.basic_unet import TwoConv
from monai.networks.nets.resnet import ResNet, ResNetBottleneck, ResNetEncoder, ResNetFeatures, get_inplanes, resnet_params
from torch import nn

from tools.data.checks import DataError, first_line
from tools.networks.levels import check_channels

__all__ = ["ACTIVATION", "PlainEncoder", "ResNet2dEncoder", "load_imagenet", "make_encoder"]

ACTIVATION = ("relu", {"inplace": True})


class PlainEncoder(nn.Module):
    """The contracting path of a U-Net (Ronneberger et al., MICCAI 2015): two 3x3 convolutions a level, maxima of 2x2 between.

    Args:
        channels: of the levels; the first has the image's resolution.

    Raises:
        DataError: there are fewer than two levels, or their channels are no positive whole numbers.
    """

    def __init__(self, channels: Sequence[int] = (24, 48, 96, 160)) -> None:
        super().__init__()
        check_channels("channels", channels)
        if len(channels) < 2:
            raise DataError(f"channels need at least two levels, got {tuple(channels)}")
        self.channels = tuple(channels)
        self.strides = tuple(2**i for i in range(len(channels)))
        self.levels = nn.ModuleList(
            TwoConv(2, before, after, act=ACTIVATION, norm="batch", bias=False) for before, after in zip((1, *channels), channels)
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        features = [self.levels[0](images)]
        for level in self.levels[1:]:
            features.append(level(nn.functional.max_pool2d(features[-1], 2)))
        return features


class ResNet2dEncoder(ResNetFeatures):
    """MONAI's ResNet features in 2D, with the layout of torchvision's networks of that name.

    MONAI builds resnet18 and resnet34 with parameter-free shortcuts, as MedicalNet has them, which ImageNet's weights do not fit.

    Args:
        name: "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"; also "resnet10" and "resnet200", which torchvision has not.
    """

    def __init__(self, name: str) -> None:
        block, layers, *_ = resnet_params[name]
        ResNet.__init__(
            self, block, layers, get_inplanes(), 2, 1, conv1_t_stride=2, shortcut_type="B", feed_forward=False, bias_downsample=False
        )
        expansion = ResNetBottleneck.expansion if block == "bottleneck" else 1
        self.channels = (64, *(expansion * planes for planes in get_inplanes()))
        self.strides = (2, 4, 8, 16, 32)


def make_encoder(name: str, channels: Sequence[int] = (24, 48, 96, 160), weights: str | os.PathLike | None = None) -> nn.Module:
    """An encoder by its name.

    Args:
        name: "plain", or one of MONAI's ResNets ("resnet18", ...).
        channels: of the plain encoder's levels.
        weights: ImageNet weights for a ResNet, see :func:`load_imagenet`; None for random ones.

    Raises:
        DataError: the name is unknown, weights are given for the plain encoder, or they or its channels are unfit.
    """
    if name == "plain":
        if weights:
            raise DataError("weights are for a ResNet encoder, the plain one has none")
        return PlainEncoder(channels)
    if name not in ResNetEncoder.get_encoder_names():
        raise DataError(f"encoder must be 'plain' or one of {ResNetEncoder.get_encoder_names()}, not {name!r}")
    encoder = ResNet2dEncoder(name)
    return load_imagenet(encoder, weights) if weights else encoder


def load_imagenet(encoder: ResNet2dEncoder, path: str | os.PathLike) -> ResNet2dEncoder:
    """Load a state dictionary of torchvision's ResNet of the same depth, in place.

    The classifier (``fc``) is left out; the first convolution's RGB filters are summed into one channel, which answers as the
    original does to the same grey image in all three.

    Raises:
        DataError: the file is missing or unreadable, or its tensors are not those of this network; the message names file and tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such weights")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"{path}: not readable as weights ({first_line(error)})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"{path}: not a state dictionary of tensors")
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    if "conv1.weight" in state and state["conv1.weight"].ndim == 4:
        state["conv1.weight"] = state["conv1.weight"].sum(1, keepdim=True)
    expected = encoder.state_dict()
    # Weights of torchvision's early years hold no counts of batches.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    other = [key for key in state if key not in expected or state[key].shape != expected[key].shape]
    if missing or other:
        fault = f"no tensor {missing[0]!r}" if missing else f"tensor {other[0]!r} {tuple(state[other[0]].shape)} does not fit"
        raise DataError(f"{path}: not the weights of this encoder: {fault} ({len(missing)} missing, {len(other)} unfit)")
    encoder.load_state_dict(state, strict=False)
    return encoder
