"""A look at the registration while it trains."""

from __future__ import annotations

import logging

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.utils.data import Dataset

from tools.data.splits import report_pairs
from tools.registration.displacement import jacobian_determinant, warp

__all__ = ["RegistrationValidation"]


class RegistrationValidation:
    """Handler: registers pairs of validation cases; writes "registration_dice" and "folds" (share) to the engine's metrics.

    Args:
        network: F_R.
        dataset: labelled cases with "image" and "label" (1, D, H, W).
        interval: epochs between two looks.
        rank: only the process of rank 0 looks.
    """

    def __init__(self, network: nn.Module, dataset: Dataset, interval: int = 5, rank: int = 0) -> None:
        self.network, self.dataset, self.rank = network, dataset, rank
        self.interval = interval
        self.logger = logging.getLogger("validation")

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        if self.rank == 0 and len(self.dataset) > 1:
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Register the pairs and average."""
        network = getattr(self.network, "module", self.network).eval()
        dice, folds = [], []
        for moving, fixed in report_pairs(len(self.dataset)):
            m, f = (
                {key: torch.as_tensor(self.dataset[i][key])[None].to(engine.state.device) for key in ("image", "label")} for i in (moving, fixed)
            )
            ddf = network(f["image"], m["image"]).ddf
            warped = warp(m["label"].float(), ddf, mode="nearest").round().long()
            for value in range(1, int(f["label"].max()) + 1):
                a, b = warped == value, f["label"] == value
                dice.append(float(2 * (a & b).sum() / (a.sum() + b.sum()).clamp_min(1)))
            folds.append(float((jacobian_determinant(ddf) <= 0).float().mean()))
        engine.state.metrics["registration_dice"] = sum(dice) / len(dice)
        engine.state.metrics["folds"] = sum(folds) / len(folds)
        self.logger.info(
            f"epoch {engine.state.epoch}: registration Dice {engine.state.metrics['registration_dice']:.4f}, folds {engine.state.metrics['folds']:.2e}"
        )
