"""A look at the points of validation cases while the network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.metrics import Metric
from monai.inferers import Inferer
from torch import nn

from tools.bundle.checkpoint import plain

__all__ = ["PointAccuracy", "PrepareCase", "ShapeInferer"]


class PrepareCase:
    """``prepare_batch`` of MONAI's evaluators: "image" and "points"."""

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 1, D, H, W) and true points (B, M, 3), mm."""
        return batch["image"].to(device).float(), batch["points"].to(device).float()


class ShapeInferer(Inferer):
    """Points of the finest scale (B, M, 3), mm, where other networks answer an image."""

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Ask the network for the shape of ``inputs`` (B, 1, D, H, W)."""
        return plain(network).shape(inputs).points[-1]


class PointAccuracy(Metric):
    """Less the root mean square distance of predicted from true points, mm: the greater the better, as MONAI's evaluators want it."""

    def __init__(self) -> None:
        super().__init__(output_transform=lambda output: output)

    def reset(self) -> None:
        """Forget all cases."""
        self.squares: list[float] = []

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Take in cases with "pred" and "label", (M, 3) each."""
        self.squares += [float((case["pred"] - case["label"]).square().sum(-1).mean()) for case in output]

    def compute(self) -> float:
        """The metric, minus infinity without a case."""
        return -((sum(self.squares) / len(self.squares)) ** 0.5) if self.squares else float("-inf")
