"""A teacher that answers where a label is missing: the running average of a network (Tarvainen & Valpola, NeurIPS 2017)."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tools.data.checks import DataError

__all__ = ["check_background_weight", "most_probable", "running_average"]


def running_average(network: nn.Module, decay: float, buffers: bool = False) -> AveragedModel:
    """A copy of the network that follows it by a running average of its weights, ``update_parameters`` a step; in evaluation mode.

    Args:
        network: the first update copies its weights.
        decay: the average's own share of an update; 0 keeps to the network itself.
        buffers: whether its buffers (running statistics of norms) are averaged too; else they are the network's latest.

    Raises:
        DataError: ``decay`` is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise DataError(f"teacher_decay must be at least 0 and below 1, not {decay}")
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=buffers).requires_grad_(False).eval()


def check_background_weight(weight: float) -> None:
    """Raises DataError when the weight of :func:`most_probable` is not positive."""
    if weight <= 0:
        raise DataError(f"background_weight must be positive, not {weight}")


def most_probable(logits: torch.Tensor, background_weight: float = 1.0) -> torch.Tensor:
    """The most probable class of each voxel or pixel, with the background's probability weighed.

    Soft Dice makes a network call foreground what is half background; where it learns from such answers, structures swell from turn to
    turn, and a weight above 1 holds them.

    Args:
        logits: (B, C, *spatial), class 0 the background.
        background_weight: factor on the background's probability.

    Returns:
        (B, *spatial), int64.
    """
    probabilities = logits.float().softmax(1)
    probabilities[:, 0] *= background_weight
    return probabilities.argmax(1)
