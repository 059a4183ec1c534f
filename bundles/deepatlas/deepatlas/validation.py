"""A look at the registration while it trains."""

from __future__ import annotations

import logging

import torch
from ignite.engine import Engine, Events
from monai.utils import convert_to_tensor
from torch import nn
from torch.utils.data import Dataset

from tools.bundle.checkpoint import plain
from tools.data.splits import report_pairs
from tools.registration.displacement import jacobian_determinant, warp

__all__ = ["RegistrationValidation"]


class RegistrationValidation:
    """Handler: registers pairs of validation cases; writes "folds" (share) and, with labels, "registration_dice" to the engine's metrics.

    Args:
        network: F_R.
        dataset: cases with "image" and, where there are any, "label" (1, D, H, W).
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
        network = plain(self.network).eval()
        dice, folds = [], []
        for moving, fixed in report_pairs(len(self.dataset)):
            m, f = (self._batch(index, engine.state.device) for index in (moving, fixed))
            ddf = network(f["image"], m["image"]).ddf
            folds.append(float((jacobian_determinant(ddf) <= 0).float().mean()))
            if "label" not in m or "label" not in f:
                continue
            warped = warp(m["label"].float(), ddf, mode="nearest").round().long()
            for value in range(1, int(f["label"].max()) + 1):
                a, b = warped == value, f["label"] == value
                if a.any() or b.any():
                    dice.append(float(2 * (a & b).sum() / (a.sum() + b.sum())))
        metrics = {"registration_dice": sum(dice) / len(dice)} if dice else {}
        metrics["folds"] = sum(folds) / len(folds)
        engine.state.metrics.update(metrics)
        parts = ", ".join(f"{key.replace('_dice', ' Dice')} {value:.4g}" for key, value in metrics.items())
        self.logger.info(f"epoch {engine.state.epoch}: {parts}")

    def _batch(self, index: int, device: torch.device) -> dict[str, torch.Tensor]:
        case = self.dataset[index]
        return {key: convert_to_tensor(case[key], track_meta=False)[None].to(device) for key in ("image", "label") if key in case}
