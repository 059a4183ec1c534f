"""Supervised contrastive regularisation: samples of one class (here: domain) together, those of others apart."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from tools.data.checks import DataError

__all__ = ["MultiscaleContrastiveLoss", "SupervisedContrastiveLoss"]


class SupervisedContrastiveLoss(nn.Module):
    """L_i = -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p/t) / sum_{a != i} exp(z_i.z_a/t) ), the mean over the anchors i with a positive.

    P(i) are the other samples of i's class (Khosla et al., NeurIPS 2020, eq. 2). Computed in float32 whatever the precision around.

    Args:
        temperature: t, positive.

    Raises:
        DataError: when the temperature is not positive.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if temperature <= 0:
            raise DataError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature

    def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Scalar loss of a batch.

        Args:
            embeddings: (B, E), of length one.
            labels: LongTensor (B,).

        Returns:
            the mean over anchors; without any positive in the batch a zero that is still part of the graph, with zero gradients.

        Raises:
            ValueError: when the shapes are not (B, E) and (B,).
        """
        if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
            raise ValueError(f"embeddings (B, E) and labels (B,) are needed, got {tuple(embeddings.shape)} and {tuple(labels.shape)}")
        if len(labels) < 2:
            return embeddings.float().sum() * 0
        labels = labels.to(embeddings.device)
        itself = torch.eye(len(labels), dtype=torch.bool, device=embeddings.device)
        positive = (labels[:, None] == labels[None]) & ~itself
        # Autocast would run the product in half precision, where 1/t magnifies its rounding.
        with torch.autocast(embeddings.device.type, enabled=False):
            z = embeddings.float()
            similarity = (z @ z.T / self.temperature).masked_fill(itself, -torch.inf)
            log_probability = similarity - similarity.logsumexp(1, keepdim=True)
        per_anchor = -torch.where(positive, log_probability, 0).sum(1) / positive.sum(1).clamp_min(1)
        # no positive, no part; nothing is read back, so that a GPU need not be waited for
        return per_anchor.sum() / positive.any(1).sum().clamp_min(1)


class MultiscaleContrastiveLoss(nn.Module):
    """Mean of :class:`SupervisedContrastiveLoss` over the scales of a network (Boutillon et al., 2022).

    Args:
        temperature: t, positive.
        weights: of the scales, not negative and not all zero; by default all alike. Only their proportions matter.

    Raises:
        DataError: the temperature is not positive.
        ValueError: the weights are negative, or all zero.
    """

    def __init__(self, temperature: float = 0.1, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if weights is not None and (min(weights, default=0) < 0 or sum(weights) <= 0):
            raise ValueError(f"weights must not be negative nor all zero, got {weights}")
        self.loss, self.weights = SupervisedContrastiveLoss(temperature), weights

    def forward(self, embeddings: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, E_s), one a scale, and LongTensor labels (B,) to a scalar.

        Raises:
            ValueError: when scales and weights differ in number.
        """
        weights = self.weights if self.weights is not None else (1.0,) * len(embeddings)
        if not embeddings or len(weights) != len(embeddings):
            raise ValueError(f"embeddings of {len(embeddings)} scales, weights of {len(weights)}")
        return sum(w * self.loss(z, labels) for w, z in zip(weights, embeddings)) / sum(weights)
