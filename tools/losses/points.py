"""How far predicted points are from the true ones: plain and focal squared error, and its sum over the scales of a progressive model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from tools.data.checks import DataError

__all__ = ["PointLoss", "PointParts", "ProgressivePointLoss", "expected_error_loss"]

KINDS = ("mse", "focal", "l1")


class PointLoss(nn.Module):
    """Mean over all coordinates of l^2 ("mse"), of l^2 / (1 + exp(a (c - l))) ("focal") or of l ("l1"), l = \\|predicted - true\\| in mm.

    The focal loss (of DeepSSM in ShapeWorks) all but leaves out coordinates that are nearer than c.

    Args:
        kind: "mse", "focal" or "l1".
        a: steepness of the focal loss, 1/mm.
        c: distance at which the focal loss counts half, mm.

    Raises:
        DataError: the kind is unknown.
    """

    def __init__(self, kind: str = "mse", a: float = 10.0, c: float = 0.2) -> None:
        super().__init__()
        if kind not in KINDS:
            raise DataError(f"kind must be one of {KINDS}, not {kind!r}")
        self.kind, self.a, self.c = kind, a, c

    def forward(self, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        """Points (B, M, 3), mm, to a scalar.

        Raises:
            ValueError: the shapes differ.
        """
        if predicted.shape != true.shape:
            raise ValueError(f"predicted and true points differ in shape: {tuple(predicted.shape)} and {tuple(true.shape)}")
        difference = (predicted - true).abs()
        if self.kind == "l1":
            return difference.mean()
        if self.kind == "mse":
            return difference.square().mean()
        return (difference.square() * torch.sigmoid(self.a * (difference - self.c))).mean()


class PointParts(NamedTuple):
    """Loss over all scales, and that of each scale without its weight, scalars."""

    loss: torch.Tensor
    scales: tuple[torch.Tensor, ...]


class ProgressivePointLoss(nn.Module):
    """sum_j w_j L_j over the scales of a progressive model (Aziz, Adams & Elhabian, ShapeMI 2023).

    L_j is the mean over the steps of scale j, the coarse shape and each of its refinements, of the loss to the first M_j true points.

    Args:
        loss: of predicted and true points (B, M, 3).
        weights: w_j, or one number; the last one holds for all further scales.
        deep: whether every scale and step counts; otherwise only the last step of the last scale does.

    Raises:
        DataError: there is no weight, or one that is negative or no number.
    """

    def __init__(self, loss: nn.Module | None = None, weights: float | Sequence[float] = (1.0,), deep: bool = True) -> None:
        super().__init__()
        numbers = weights if isinstance(weights, (list, tuple)) else [weights]
        if not numbers or not all(isinstance(weight, (int, float)) and weight >= 0 for weight in numbers):
            raise DataError(f"weights must be at least one number, none negative, got {weights!r}")
        self.loss, self.weights, self.deep = PointLoss() if loss is None else loss, tuple(numbers), deep

    def forward(self, steps: Sequence[Sequence[torch.Tensor]], true: torch.Tensor) -> PointParts:
        """Compare all scales.

        Args:
            steps: for each scale its steps, (B, M_j, 3) each, mm.
            true: (B, M, 3) with M >= M_j, mm.
        """
        scales = []
        for scale in steps:
            counted = scale if self.deep else scale[-1:]
            scales.append(torch.stack([self.loss(points, true[:, : points.shape[1]]) for points in counted]).mean())
        weights = [self.weights[min(j, len(self.weights) - 1)] for j in range(len(scales))]
        total = sum(weight * value for weight, value in zip(weights, scales)) if self.deep else scales[-1]
        return PointParts(total, tuple(scales))


def expected_error_loss(log_error: torch.Tensor, predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the points' distances e under exponential distributions of mean b: mean of log b + e / b.

    Its minimum over b is the expected distance. The distances get no gradient: the points are not drawn to where errors are easy to tell.

    Args:
        log_error: (B, M), log b, mm.
        predicted, true: (B, M, 3), mm.
    """
    distance = (predicted - true).norm(dim=-1).detach()
    return (log_error + distance * (-log_error).exp()).mean()
