"""Multiscale projection heads: one embedding of a sample from each scale of a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["MultiscaleProjection"]


class MultiscaleProjection(nn.Module):
    """Global average pooling, a perceptron with one hidden layer, L2 normalisation; apart for each scale (Khosla et al., NeurIPS 2020).

    Args:
        channels: channels of the feature map at each scale.
        embedding: size E of an embedding.
        hidden: size of the hidden layer; by default that of the scale's features.

    Raises:
        ValueError: no scale, or a size that is not positive.
    """

    def __init__(self, channels: Sequence[int], embedding: int = 64, hidden: int | None = None) -> None:
        super().__init__()
        if not channels or min(*channels, embedding, 1 if hidden is None else hidden) < 1:
            raise ValueError(f"channels, embedding and hidden must be positive, got {tuple(channels)}, {embedding} and {hidden}")
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(c, hidden or c), nn.ReLU(inplace=True), nn.Linear(hidden or c, embedding)) for c in channels
        )

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Feature maps (B, C_s, *spatial), one a scale, to embeddings (B, E) of length one, in float32.

        Raises:
            ValueError: there are not as many maps as scales.
        """
        if len(features) != len(self.heads):
            raise ValueError(f"{len(features)} feature maps for {len(self.heads)} scales")
        return [F.normalize(head(maps.flatten(2).mean(2)).float(), dim=1) for head, maps in zip(self.heads, features)]
