"""The two networks, built from plain numbers that the plan keeps, so that weights never need the training's config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import UNet
from torch import nn

from tools.bundle.overrides import to_bool
from tools.data.plan import Plan
from tools.networks.encoders import ConvEncoder, SwinEncoder
from tools.networks.registration import FeaturePyramid, RegistrationNetwork, VelocityDecoder

__all__ = ["registration_from_plan", "registration_network", "segmentation_from_plan", "segmentation_network"]

SQUARINGS = 5  # of the velocity at half resolution: steps of a thirty-second of the displacement


def segmentation_from_plan(plan: Plan) -> nn.Module:
    """F_S with the sizes the plan keeps in ``extra["segmentation"]``."""
    return segmentation_network(plan.num_classes, **plan.extra.get("segmentation", {}))


def registration_from_plan(plan: Plan, **options: Any) -> RegistrationNetwork:
    """F_R with the sizes the plan keeps in ``extra["registration"]``; options override them."""
    return registration_network(plan.num_classes, **{**plan.extra.get("registration", {}), **options})


def segmentation_network(num_classes: int, channels: Sequence[int] = (16, 32, 64, 128), residual_units: int = 2) -> nn.Module:
    """F_S: MONAI's residual 3D U-Net, (B, 1, D, H, W) to logits (B, num_classes, D, H, W); sides in multiples of 8."""
    return UNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=num_classes,
        channels=tuple(channels),
        strides=(2,) * (len(channels) - 1),
        num_res_units=residual_units,
        norm=("instance", {"affine": True}),
    )


def registration_network(
    num_classes: int,
    backbone: str = "conv",
    channels: Sequence[int] = (24, 48, 64, 96),
    hidden: Sequence[int] = (24, 48, 48, 48),
    diffeomorphic: bool | str = True,
    affine_passes: int = 0,
    feature_supervision: bool | str = True,
) -> RegistrationNetwork:
    """F_R over a convolutional or an attention-based encoder.

    Args:
        num_classes: classes of the feature supervision, with the background.
        backbone: "conv" or "swin".
        channels: feature channels at 1/2, 1/4, ... of the resolution.
        hidden: channels of the decoder's corrections, as many.
        diffeomorphic: whether the decoder predicts a stationary velocity field, or else a plain displacement.
        affine_passes: affine pre-alignments at inference, each fitted to the network's own answer.
        feature_supervision: whether a linear layer reads segmentations from the features, for a loss of their own.

    Raises:
        ValueError: the backbone is unknown.
    """
    if backbone == "conv":
        encoder: nn.Module = ConvEncoder(1, channels, (1,) * len(channels))
    elif backbone == "swin":
        encoder = SwinEncoder(1, embed_dim=channels[0], levels=len(channels))
    else:
        raise ValueError(f"backbone must be 'conv' or 'swin', not {backbone!r}")
    decoder = VelocityDecoder(channels, hidden, SQUARINGS if to_bool(diffeomorphic) else 0)
    return RegistrationNetwork(FeaturePyramid(encoder, channels), decoder, num_classes if to_bool(feature_supervision) else None, affine_passes)
