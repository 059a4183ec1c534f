"""The loss of a shape network, composed of the shared parts; it returns its parts by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from tools.bundle.overrides import to_bool
from tools.losses.anatomy import AnatomyLoss
from tools.losses.points import PointLoss, ProgressivePointLoss, expected_error_loss
from tools.networks.shape_networks import ShapeOutput

__all__ = ["ShapeLoss", "ShapeLossParts"]


class ShapeLossParts(NamedTuple):
    """Weighted parts of the loss and their sum, scalars; ``scales`` are the point losses of the scales, without weights."""

    loss: torch.Tensor
    points: torch.Tensor
    segmentation: torch.Tensor
    uncertainty: torch.Tensor
    codes: torch.Tensor
    scales: tuple[torch.Tensor, ...]


class ShapeLoss(nn.Module):
    """sum_j w_j L_j + b (Dice + CE) (Aziz, Adams & Elhabian, ShapeMI 2023) + u L_u, or the losses of TL-DeepSSM.

    L_u is ours: likelihood of the expected errors (:func:`tools.losses.points.expected_error_loss`), which moves no point.

    Args:
        point_loss: L, see :class:`tools.losses.points.PointLoss`.
        scale_weights: w_j, or one number; the last one holds for all further scales.
        deep_supervision: whether every scale learns from a loss of its own, or all from that of the last one.
        segmentation_weight, uncertainty_weight: b and u.
        code_weight: of the squared difference of codes, relative to the point loss of the auto-encoder.
    """

    def __init__(
        self,
        point_loss: nn.Module | None = None,
        scale_weights: float | Sequence[float] = (1.0,),
        deep_supervision: bool | str = True,
        segmentation_weight: float = 1.0,
        uncertainty_weight: float = 0.1,
        code_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.point_loss = PointLoss() if point_loss is None else point_loss
        self.progressive = ProgressivePointLoss(self.point_loss, scale_weights, to_bool(deep_supervision))
        self.dice = AnatomyLoss()
        self.segmentation_weight, self.uncertainty_weight, self.code_weight = segmentation_weight, uncertainty_weight, code_weight

    def forward(self, output: ShapeOutput, points: torch.Tensor, labels: torch.Tensor, learn: str = "points") -> ShapeLossParts:
        """Compare.

        Args:
            output: of a shape network.
            points: the true ones (B, M, 3), mm.
            labels: one-hot or soft (B, C, D, H, W).
            learn: what a stage compares, see :class:`progressive_deepssm.stages.Stage`.
        """
        segmentation = uncertainty = codes = points.new_zeros(())
        if learn == "points":
            compared = self.progressive(output.steps, points)
        else:
            image_code, true_code, rebuilt = output.codes
            compared = self.progressive([[rebuilt]], points)
            if learn == "codes":  # the auto-encoder is frozen
                true_code, compared = true_code.detach(), compared._replace(loss=points.new_zeros(()))
            if learn != "autoencoder":
                codes = self.code_weight * F.mse_loss(image_code, true_code)
        if output.points and self.uncertainty_weight:
            last = output.points[-1]
            uncertainty = self.uncertainty_weight * expected_error_loss(output.log_error, last, points[:, : last.shape[1]])
        if output.logits is not None and self.segmentation_weight:
            logits = output.logits.float()
            segmentation = self.segmentation_weight * (self.dice(logits.softmax(1), labels) + F.cross_entropy(logits, labels))
        total = compared.loss + segmentation + uncertainty + codes
        return ShapeLossParts(total, compared.loss, segmentation, uncertainty, codes, compared.scales)
