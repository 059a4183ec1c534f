"""Networks in the form in which they are exported (``configs/export.json``): tensors in, tensors out."""

from __future__ import annotations

import torch
from torch import nn

from tools.networks.shape_networks import ShapeNetwork

__all__ = ["PointNetwork"]


class PointNetwork(nn.Module):
    """All that a shape network says of an image, at its finest scale.

    Args:
        network: with its weights.
    """

    def __init__(self, network: ShapeNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image (B, 1, D, H, W) to points (B, M, 3) and their uncertainty (B, M), mm, and logits (B, C, D, H, W)."""
        output = self.network.shape(image)
        return output.points[-1], output.uncertainty, output.logits
