"""The heads of a progressive shape network: scores of the shape model, and refinement of points by the features around them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from tools.networks.shape_decoders import LinearShapeDecoder, projection_matrix
from tools.registration.displacement import sample

__all__ = ["ErrorHead", "PointRefiner", "ScoreHead", "sample_around"]

FREQUENCIES = 3  # of the sines that tell a point's place on the mean shape


class ScoreHead(nn.Module):
    """[image vector, points of the scale before] -> whitened scores of this scale's shape model.

    The points before are projected on this scale's modes, which says what the model makes of the points it does not know yet; the
    network predicts a correction of these scores.

    Args:
        vector_channels: G.
        modes: K.
        previous: points of the scale before; 0 for the first scale.
        hidden: width of the correction's hidden layer.
    """

    def __init__(self, vector_channels: int, modes: int, previous: int = 0, hidden: int = 128) -> None:
        super().__init__()
        self.previous = previous
        if not previous:
            self.predict: nn.Module = nn.Linear(vector_channels, modes)
            return
        self.register_buffer("projection", torch.zeros(modes, 3 * previous))
        last = nn.Linear(hidden, modes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.predict = nn.Sequential(nn.Linear(vector_channels + modes, hidden), nn.LeakyReLU(0.1), last)

    @torch.no_grad()
    def fill(self, decoder: LinearShapeDecoder) -> None:
        """Take the projection from the scale's shape model."""
        if self.previous:
            self.projection.copy_(projection_matrix(decoder, self.previous))

    def forward(self, vector: torch.Tensor, mean: torch.Tensor, points: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (B, K).

        Args:
            vector: (B, G).
            mean: (M, 3), mean shape of this scale, mm.
            points: (B, previous, 3), mm; None at the first scale.
        """
        if points is None:
            return self.predict(vector)
        projected = (points - mean[: self.previous]).flatten(1) @ self.projection.T
        return projected + self.predict(torch.cat((vector, projected), dim=1))


def sample_around(
    maps: Sequence[torch.Tensor], grids: Sequence[tuple[float, float]], positions: torch.Tensor, radius: float
) -> torch.Tensor:
    """Features at points and at the six places ``radius`` from them along the axes.

    Args:
        maps: (B, C_i, d_i, h_i, w_i) each.
        grids: (stride, offset) of each map: its voxel j lies at voxel stride j + offset of the image.
        positions: (B, M, 3), voxels of the image.
        radius: voxels of the image.

    Returns:
        (B, M, 7 sum C_i) float32.
    """
    axes = torch.eye(3, device=positions.device) * radius
    around = positions[:, :, None] + torch.cat((torch.zeros_like(axes[:1]), axes, -axes))  # (B, M, 7, 3)
    features = []
    for feature_map, (stride, offset) in zip(maps, grids):
        place = (around - offset) / stride
        features.append(sample(feature_map.float(), place.permute(0, 3, 1, 2)[..., None])[..., 0])
    return torch.cat(features, dim=1).permute(0, 2, 3, 1).flatten(2)


class ErrorHead(nn.Module):
    """Logs of expected distances, mm, between -3 and 3 (0.05 and 20 mm), read from features that it does not change.

    Args:
        channels: of the features.
        points: numbers it gives.
    """

    LIMIT = 3.0

    def __init__(self, channels: int, points: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, points)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., channels) to (..., points)."""
        return self.LIMIT * torch.tanh(self.linear(features.detach()) / self.LIMIT)


class PointRefiner(nn.Module):
    """Moves points by what the feature maps show around them; the same small network for all points of a scale.

    A point is told its place on the mean shape (which point it is), where it has come to, the image vector, and the mean over all points
    of what they see: neighbours move alike.

    Args:
        map_channels: sum of the maps' channels.
        vector_channels: G.
        grids: where the maps' voxels lie, see :func:`sample_around`.
        hidden: width.
        radius: reach of the sampling, voxels.
        context: channels the image vector is reduced to.
    """

    def __init__(
        self,
        map_channels: int,
        vector_channels: int,
        grids: Sequence[tuple[float, float]],
        hidden: int = 128,
        radius: float = 2.0,
        context: int = 32,
    ) -> None:
        super().__init__()
        self.grids, self.radius = tuple(grids), radius
        self.context = nn.Linear(vector_channels, context)
        place = 3 + 6 * FREQUENCIES + 3
        self.first = nn.Linear(7 * map_channels + place + context, hidden)
        self.second = nn.Linear(2 * hidden, hidden)
        self.last = nn.Linear(hidden, 3)
        self.error = ErrorHead(hidden, 1)
        self.activation = nn.LeakyReLU(0.1)
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        maps: Sequence[torch.Tensor],
        vector: torch.Tensor,
        points: torch.Tensor,
        mean: torch.Tensor,
        spacing: torch.Tensor,
        size: Sequence[int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One step.

        Args:
            maps: feature maps, see :func:`sample_around`.
            vector: (B, G).
            points: (B, M, 3), mm from the grid's centre.
            mean: (M, 3), the mean shape, mm.
            spacing: (3,), mm.
            size: the image's grid, voxels.

        Returns:
            displacements (B, M, 3), mm, and logs of the expected distance from the true points (B, M), mm.
        """
        points = points.detach()  # gradients by way of the places of sampling are noise
        centre = (torch.tensor(size, dtype=points.dtype, device=points.device) - 1) / 2
        features = sample_around(maps, self.grids, points / spacing + centre, self.radius)
        extent = mean.abs().max().clamp_min(1e-6)
        angles = torch.cat([mean / extent * (math.pi * 2**k / 2) for k in range(FREQUENCIES)], dim=1)
        which = torch.cat((mean / extent, angles.sin(), angles.cos()), dim=1).expand(points.shape[0], -1, -1)
        offset = (points - mean) / spacing / 4  # about one
        context = self.context(vector)[:, None].expand(-1, points.shape[1], -1)
        state = self.activation(self.first(torch.cat((features, which, offset, context), dim=2)))
        together = state.mean(1, keepdim=True).expand_as(state)
        state = self.activation(self.second(torch.cat((state, together), dim=2)))
        return self.last(state) * spacing, self.error(state)[..., 0]
