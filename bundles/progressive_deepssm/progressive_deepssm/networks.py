"""The network, built from plain numbers that the plan keeps, so that weights never need the training's config."""

from __future__ import annotations

from typing import Any

from torch import nn

from tools.bundle.checkpoint import plain
from tools.data.checks import DataError
from tools.data.plan import Plan
from tools.networks.encoders import ConvEncoder
from tools.networks.registration import FeaturePyramid
from tools.networks.segmentation import PyramidSegmentation
from tools.networks.shape_backbones import DeepSSMBackbone, PyramidBackbone
from tools.networks.shape_networks import ProgressiveShapeNetwork, ShapeNetwork, TLShapeNetwork

__all__ = ["network_from_plan", "parameter_groups", "segmentation_labels"]


def network_from_plan(plan: Plan) -> ShapeNetwork:
    """The network with the sizes the plan keeps in ``extra["shape"]``.

    Keys: ``architecture`` ("progressive" or "tl"), ``backbone`` ("pyramid" or "deepssm"), ``channels`` of the pyramid, ``scales``,
    ``modes``, ``refinements``, ``hidden``.

    Raises:
        DataError: the architecture or the backbone is unknown.
    """
    sizes = plan.extra["shape"]
    backbone, architecture = sizes.get("backbone", "pyramid"), sizes.get("architecture", "progressive")
    if backbone == "pyramid":
        channels = tuple(sizes["channels"])
        features = FeaturePyramid(ConvEncoder(1, channels, (1,) * len(channels)), channels)
        encoder: nn.Module = PyramidBackbone(PyramidSegmentation(features, plan.num_classes), plan.size)
    elif backbone == "deepssm":
        encoder = DeepSSMBackbone(plan.size, plan.num_classes)
    else:
        raise DataError(f"backbone must be 'pyramid' or 'deepssm', not {backbone!r}")
    scales, modes = sizes["scales"], sizes["modes"]
    if architecture == "tl":
        return TLShapeNetwork(encoder, scales[-1], modes[-1])
    if architecture != "progressive":
        raise DataError(f"architecture must be 'progressive' or 'tl', not {architecture!r}")
    return ProgressiveShapeNetwork(encoder, scales, modes, plan.size, plan.spacing, sizes["refinements"], int(sizes["hidden"]))


def segmentation_labels(plan: Plan) -> dict[int, str]:
    """Label values and names of the segmentation.

    Raises:
        DataError: the model was trained without one, and its decoder answers at random.
    """
    if not plan.extra["shape"]["segmentation"]:
        raise DataError("this model has learnt points alone, no segmentation: it was trained with segmentation_weight 0")
    return dict(plan.labels)


def parameter_groups(
    network: nn.Module, learning_rate: float, decoder_learning_rate: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for the optimiser: the linear decoders by themselves, without decay, and the rest."""
    decoders = getattr(plain(network), "decoders", nn.ModuleList())
    own = list(decoders.parameters())
    known = {id(parameter) for parameter in own}
    rest = [parameter for parameter in plain(network).parameters() if id(parameter) not in known]
    groups = [{"params": rest, "lr": learning_rate, "weight_decay": weight_decay, "part": "network"}]
    # A decay would pull the decoders to zero, not to the shape model.
    return groups + ([{"params": own, "lr": decoder_learning_rate, "weight_decay": 0.0, "part": "decoder"}] if own else [])
