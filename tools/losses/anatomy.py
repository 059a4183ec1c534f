"""Anatomical agreement: soft multi-class Dice between two segmentations, either of which may be predicted or warped."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["AnatomyLoss"]


class AnatomyLoss(nn.Module):
    """1 - soft Dice, averaged over the classes present, then over the samples by weight (L_a of Xu & Niethammer, MICCAI 2019).

    Per sample and class: 1 - (2 sum(p q) + eps) / (sum(p) + sum(q) + eps). The loss is symmetric in its two arguments.
    A class is present in a sample when either map holds more than ``eps`` of it; the others do not dilute the mean
    (MONAI's ``DiceLoss`` counts them as perfect and has no weight per sample).

    Args:
        include_background: whether class 0 counts.
        eps: smoothing of numerator and denominator, in voxels.
    """

    def __init__(self, include_background: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.include_background, self.eps = include_background, eps

    def forward(self, pred: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Weighted mean over the batch.

        Args:
            pred: probabilities or one-hot labels, (B, C, D, H, W), class 0 the background.
            target: the same, same shape.
            weights: (B,), not negative; 0 switches a sample off. None weighs all samples alike.

        Returns:
            scalar in [0, 1]; with all weights zero it is zero and still part of the graph, with zero gradients.

        Raises:
            ValueError: when the shapes differ, there is no foreground class, or the weights are not (B,).
        """
        if pred.shape != target.shape:
            raise ValueError(f"pred and target differ in shape: {tuple(pred.shape)} and {tuple(target.shape)}")
        if weights is not None and tuple(weights.shape) != (pred.shape[0],):
            raise ValueError(f"weights must be ({pred.shape[0]},), got {tuple(weights.shape)}")
        first = 0 if self.include_background else 1
        if pred.shape[1] <= first:
            raise ValueError(f"no class is left without the background in maps of {pred.shape[1]} channel(s)")
        p, q = pred[:, first:].flatten(2).float(), target[:, first:].flatten(2).float()
        volume = p.sum(2) + q.sum(2)
        loss = 1 - (2 * (p * q).sum(2) + self.eps) / (volume + self.eps)
        present = (volume > self.eps).to(loss)
        loss = (loss * present).sum(1) / present.sum(1).clamp_min(1)
        if weights is None:
            return loss.mean()
        weights = weights.to(loss)
        return (loss * weights).sum() / weights.sum().clamp_min(self.eps)
