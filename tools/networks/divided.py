"""Segmentations in which some structures are divided by a plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from tools.networks.answering import Answering

__all__ = ["DividedSegmentation", "divided"]

ABSENT = 20.0  # how far the logit of a structure falls on the other side of its plane: a probability of 2e-9, and numbers stay small
MOST_EVIDENCE = 7.0  # of one voxel, a ratio of a thousand: no single voxel decides


class DividedSegmentation(Answering):
    """A segmentation network whose answers, in evaluation mode, keep to planes between structures (:func:`divided`).

    In training mode the logits are the network's own. Its state dictionary is that of the network inside.

    Args:
        network: image (B, 1, D, H, W) to logits (B, C, D, H, W).
        divisions: (axis, lower, upper) of each, the latter two as channels.
    """

    def __init__(self, network: nn.Module, divisions: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.network, self.divisions = network, tuple(divisions)

    @property
    def features(self) -> nn.Module:
        """Of the network inside, where it has them."""
        return self.network.features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, D, H, W); float32 in evaluation mode."""
        logits = self.network(images)
        return logits if self.training else divided(logits, self.divisions)


def divided(logits: torch.Tensor, divisions: Sequence[tuple[int, int, int]]) -> torch.Tensor:
    """Logits in which two structures share no side of a plane, whose place is the most probable one.

    The voxels where both together are more probable than all else are given to the one below the plane or to the one above it. Of the
    planes between two voxels, and those beside the grid, that one is taken under which the sum of the log-probabilities of all voxels
    so given is greatest, the voxels taken as independent. On its side of the plane each gets the probability of both, and on the other
    none (less than 1e-8 of it); all other structures keep theirs. Of several divisions each is gone over once more for every other one,
    which may have handed it voxels on the wrong side of its plane.

    Args:
        logits: (B, C, D, H, W).
        divisions: (axis, lower, upper): the axis 0, 1 or 2, the channel of the structure at the smaller indices, and of the other one.

    Returns:
        float32 (B, C, D, H, W).
    """
    logits = logits.float()
    for axis, lower, upper in list(divisions) * len(divisions):
        probabilities = logits.softmax(1)
        inside = probabilities[:, lower] + probabilities[:, upper] > 0.5
        evidence = (logits[:, upper] - logits[:, lower]).clamp(-MOST_EVIDENCE, MOST_EVIDENCE) * inside
        along = evidence.movedim(axis + 1, 1).flatten(2).sum(2)
        # What lies below the plane speaks for the upper structure by so much: the less, the better.
        plane = F.pad(along.cumsum(1), (1, 0)).argmin(1)
        below = torch.arange(along.shape[1], device=logits.device) < plane[:, None]
        below = below.view(-1, *(along.shape[1] if k == axis else 1 for k in range(3)))
        both = torch.logaddexp(logits[:, lower], logits[:, upper])
        channels = list(logits.unbind(1))
        channels[lower], channels[upper] = torch.where(below, both, both - ABSENT), torch.where(below, both - ABSENT, both)
        logits = torch.stack(channels, dim=1)
    return logits
