"""The two networks, built from plain numbers that the plan keeps, so that weights never need the training's config."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from monai.networks.nets import DynUNet, UNet
from torch import nn

from tools.bundle.overrides import to_bool
from tools.data.checks import DataError
from tools.data.divisions import Division
from tools.data.plan import Plan
from tools.networks.divided import DividedSegmentation
from tools.networks.encoders import ConvEncoder, SwinEncoder, safe_convolutions
from tools.networks.levels import check_channels
from tools.networks.registration import FeaturePyramid, RegistrationNetwork, VelocityDecoder
from tools.networks.segmentation import PyramidSegmentation

__all__ = ["registration_from_plan", "registration_network", "segmentation_from_plan", "segmentation_network"]

SQUARINGS = 5  # of the velocity at half resolution: steps of a thirty-second of the displacement


def segmentation_from_plan(plan: Plan) -> nn.Module:
    """F_S with the sizes the plan keeps in ``extra["segmentation"]``; its answers keep to the plan's ``extra["divisions"]``.

    Raises:
        DataError: the channels are no list, the plan's grid cannot be halved as often as the network does, a division is of an unknown
            structure, and :func:`segmentation_network`'s.
    """
    sizes = plan.extra.get("segmentation", {})
    if "channels" in sizes:
        _check_levels("segmentation_channels", sizes["channels"], plan, sizes.get("architecture", "pyramid") == "pyramid")
    network = segmentation_network(plan.num_classes, **sizes)
    divisions = [_channels_of(division, plan) for division in plan.extra.get("divisions", ())]
    return DividedSegmentation(network, divisions) if divisions else network


def _channels_of(division: Mapping[str, int], plan: Plan) -> tuple[int, int, int]:
    try:
        found = Division(**division)
        return found.axis, *(plan.label_values[1:].index(value) + 1 for value in (found.lower, found.upper))
    except (TypeError, ValueError) as error:
        raise DataError(f"plan: {division} divides no two structures of {list(plan.label_values)} ({error})") from error


def registration_from_plan(plan: Plan) -> RegistrationNetwork:
    """F_R with the sizes the plan keeps in ``extra["registration"]``.

    Raises:
        DataError: the channels are no list, the plan's grid cannot be halved as often as the network does, and
            :func:`registration_network`'s.
    """
    sizes = plan.extra.get("registration", {})
    if "channels" in sizes:
        _check_levels("registration_channels", sizes["channels"], plan, half=True)
    return registration_network(plan.num_classes, **sizes)


def _check_levels(option: str, channels: Sequence[int], plan: Plan, half: bool) -> None:
    """Refuse levels that the plan's grid does not have; ``half``: whether the finest one is at half resolution already."""
    check_channels(f"--{option}", channels)
    factor = 2 ** (len(channels) - 1 + half)
    if any(side % factor for side in plan.size) or math.prod(side // factor for side in plan.size) < 2:
        raise DataError(f"--{option} {list(channels)}: {len(channels)} levels are too many for the grid of {list(plan.size)} voxels")


def segmentation_network(
    num_classes: int,
    architecture: str = "pyramid",
    backbone: str = "conv",
    channels: Sequence[int] = (32, 64, 96, 128),
    fine_channels: Sequence[int] = (8,),
) -> nn.Module:
    """F_S: (B, 1, D, H, W) to logits (B, num_classes, D, H, W), sides in multiples of 16.

    Args:
        num_classes: with the background.
        architecture: "pyramid", the registration network's feature pyramid with a sub-pixel head; "dynunet", MONAI's rebuild of nnU-Net's
            plain U-Net; or "unet", MONAI's residual U-Net.
        backbone: encoder of the pyramid, "conv" or "swin".
        channels: channels of the levels, finest first: the pyramid's begin at half resolution, dynunet's at the full one.
        fine_channels: channels of the pyramid's blocks at full resolution.

    Raises:
        DataError: the architecture or the backbone is unknown, the pyramid has no block at full resolution, or another has a single level.
    """
    check_channels("--segmentation_fine_channels", fine_channels)
    if architecture == "pyramid":
        return PyramidSegmentation(_features(backbone, channels), num_classes, fine_channels)
    levels, norm = len(channels), ("instance", {"affine": True})
    if architecture in ("dynunet", "unet") and levels < 2:
        raise DataError(f"--segmentation_channels {list(channels)}: a {architecture} has two levels or more")
    if architecture == "dynunet":
        strides = (1,) + (2,) * (levels - 1)
        return safe_convolutions(DynUNet(3, 1, num_classes, (3,) * levels, strides, strides[1:], tuple(channels), norm_name=norm))
    if architecture == "unet":
        return safe_convolutions(UNet(3, 1, num_classes, tuple(channels), (2,) * (levels - 1), num_res_units=2, norm=norm))
    raise DataError(f"architecture must be 'pyramid', 'dynunet' or 'unet', not {architecture!r}")


def _features(backbone: str, channels: Sequence[int]) -> FeaturePyramid:
    if backbone == "conv":
        return FeaturePyramid(ConvEncoder(1, channels, (1,) * len(channels)), channels)
    if backbone == "swin":
        return FeaturePyramid(SwinEncoder(1, embed_dim=channels[0], levels=len(channels)), channels)
    raise DataError(f"backbone must be 'conv' or 'swin', not {backbone!r}")


def registration_network(
    num_classes: int,
    backbone: str = "conv",
    channels: Sequence[int] = (32, 64, 96, 128),
    hidden: Sequence[int] = (24, 48, 48, 48),
    diffeomorphic: bool | str = True,
    affine_passes: int = 0,
    feature_supervision: bool | str = True,
    symmetric: bool | str = False,
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
        symmetric: whether the swapped pair's displacement is the inverse (:class:`tools.networks.registration.VelocityDecoder`).

    Raises:
        DataError: the backbone is unknown, ``channels`` and ``hidden`` have not the same number of levels, or ``symmetric`` is asked of
            plain displacements.
    """
    diffeomorphic, symmetric = to_bool(diffeomorphic), to_bool(symmetric)
    if symmetric and not diffeomorphic:
        raise DataError("--symmetric true needs --diffeomorphic true: the negative of a plain displacement is not its inverse")
    check_channels("--registration_hidden", hidden)
    if len(channels) != len(hidden):
        raise DataError(f"--registration_hidden {list(hidden)}: one number a level, as --registration_channels {list(channels)}")
    decoder = VelocityDecoder(channels, hidden, SQUARINGS if diffeomorphic else 0, symmetric)
    classes = num_classes if to_bool(feature_supervision) else None
    return RegistrationNetwork(_features(backbone, channels), decoder, classes, affine_passes)
