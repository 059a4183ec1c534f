"""From few numbers to corresponding points: the linear decoder of a point distribution model, and the auto-encoder of TL-DeepSSM."""

from __future__ import annotations

import torch
from torch import nn

from tools.shape.pdm import PointDistributionModel

__all__ = ["LinearShapeDecoder", "PointAutoencoder", "projection_matrix"]


class LinearShapeDecoder(nn.Module):
    """y = b + sum_k z_k W_k: begins as a point distribution model, b its mean and W_k its modes times their standard deviations.

    Args:
        points: M.
        modes: K.

    Attributes:
        mean, modes, deviations: of the model that it began as, buffers (M, 3), (K, M, 3) and (K,), mm; zero until :meth:`fill`.
        frozen: while true, weight and bias get no gradient.
    """

    def __init__(self, points: int, modes: int) -> None:
        super().__init__()
        self.frozen = True
        self.register_buffer("mean", torch.zeros(points, 3))
        self.register_buffer("modes", torch.zeros(modes, points, 3))
        self.register_buffer("deviations", torch.zeros(modes))
        self.weight = nn.Parameter(torch.zeros(modes, points, 3))
        self.bias = nn.Parameter(torch.zeros(points, 3))

    @torch.no_grad()
    def fill(self, model: PointDistributionModel) -> None:
        """Begin as a model; modes that it has not stay zero.

        Raises:
            ValueError: the model has another number of points.
        """
        if model.mean.shape != tuple(self.mean.shape):
            raise ValueError(f"expected a model of {len(self.mean)} points, got {len(model.mean)}")
        count = min(len(self.deviations), len(model.deviations))
        tensors = model.tensors()
        self.mean.copy_(tensors["mean"])
        for name in ("modes", "deviations"):
            getattr(self, name).zero_()[:count].copy_(tensors[name][:count])
        self.weight.copy_(self.modes * self.deviations[:, None, None])
        self.bias.copy_(self.mean)

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Whitened scores (B, K) to points (B, M, 3), mm."""
        weight, bias = (self.weight.detach(), self.bias.detach()) if self.frozen else (self.weight, self.bias)
        return bias + torch.einsum("bk,kmi->bmi", scores, weight)


def projection_matrix(decoder: LinearShapeDecoder, points: int, noise: float = 0.5) -> torch.Tensor:
    """The matrix from the first points' offsets from the mean to the most probable whitened scores, (K, points * 3).

    The scores have a standard normal prior and the points an error: z = (W W^T + s^2 I)^-1 W (y - mean).

    Args:
        decoder: the linear decoder, in the state of its model.
        points: how many points are known.
        noise: s, standard deviation of their coordinates, mm.
    """
    weight = (decoder.modes * decoder.deviations[:, None, None])[:, :points].flatten(1).double()
    gram = weight @ weight.T + noise**2 * torch.eye(len(weight), dtype=weight.dtype, device=weight.device)
    return torch.linalg.solve(gram, weight).float()


class PointAutoencoder(nn.Module):
    """Auto-encoder of corresponding points: fully connected, 3 M - 1024 - 512 - K and back, PReLU (TL-DeepSSM of ShapeWorks).

    Args:
        points: M.
        latent: K.
        hidden: the two layers between.

    Attributes:
        mean, deviation: what points are normalised by, buffers (M, 3) and scalar, mm; zero and one until :meth:`fill`.
    """

    def __init__(self, points: int, latent: int, hidden: tuple[int, int] = (1024, 512)) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(points, 3))
        self.register_buffer("deviation", torch.ones(()))
        wide, narrow = hidden
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * points, wide), nn.PReLU(), nn.Linear(wide, narrow), nn.PReLU(), nn.Linear(narrow, latent)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent, narrow),
            nn.PReLU(),
            nn.Linear(narrow, wide),
            nn.PReLU(),
            nn.Linear(wide, 3 * points),
            nn.Unflatten(1, (-1, 3)),
        )

    @torch.no_grad()
    def fill(self, model: PointDistributionModel) -> None:
        """Take mean and spread of a model's training shapes."""
        self.mean.copy_(model.tensors()["mean"])
        self.deviation.copy_(torch.tensor(float((model.deviations**2).sum() / self.mean.numel()) ** 0.5))

    def encode(self, points: torch.Tensor) -> torch.Tensor:
        """Points (B, M, 3), mm, to codes (B, K)."""
        return self.encoder((points - self.mean) / self.deviation)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (B, K) to points (B, M, 3), mm."""
        return self.mean + self.deviation * self.decoder(codes)
