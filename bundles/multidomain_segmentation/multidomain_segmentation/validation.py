"""A look at whole validation volumes while the network trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.transforms import Transform

from tools.data.domain_plan import DomainPlan

__all__ = ["DomainDice", "PrepareVolume", "ValidationDice"]


class PrepareVolume:
    """``prepare_batch`` of MONAI's evaluators: one volume, its label, and the domain as an argument of the network.

    Args:
        plan: the plan of all domains, where the batch's "domain" is a number.
    """

    def __init__(self, plan: DomainPlan) -> None:
        self.plan = plan

    def __call__(
        self, batch: Mapping[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, tuple, dict[str, str]]:
        """ "image" (1, S, H, W) or (1, 1, S, H, W) to (image (1, 1, S, H, W) float32, label, (), {"domain": name})."""
        image, label, domain = batch["image"].to(device), batch.get("label"), batch["domain"][0]
        image = image[:, None] if image.ndim == 4 else image
        name = domain if isinstance(domain, str) else self.plan.names[int(domain)]
        return image.float(), None if label is None else label.to(device), (), {"domain": name}


class ValidationDice(Transform):
    """Dice of each structure of a volume: "dice" (C_k - 1,), NaN where a structure is neither in "pred" (C_k, S, H, W) nor in "label"."""

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """The case with "dice", and "dice_domain", its "domain"."""
        predicted, label = data["pred"].argmax(0), data["label"]
        values = []
        for channel in range(1, len(data["pred"])):
            a, b = predicted == channel, label == channel
            size = a.sum() + b.sum()
            values.append(2 * (a & b).sum() / size if size else torch.tensor(torch.nan))
        return {**data, "dice": torch.tensor([float(value) for value in values]), "dice_domain": data["domain"]}


class DomainDice(Metric):
    """Mean over the domains of the mean over their volumes of the mean Dice over structures: no domain counts more for its size.

    With a target it is the mean over that domain's volumes. With every computation the means of the single domains go to the metrics of
    ``engine``, as "dice_<domain>".

    Args:
        plan: the plan of all domains.
        target: name of the only domain that the network is for, or None.
    """

    def __init__(self, plan: DomainPlan, target: str | None = None) -> None:
        self.plan, self.target = plan, target
        super().__init__(output_transform=lambda output: output)

    def reset(self) -> None:
        """Forget all volumes."""
        self.values: dict[str, list[float]] = {}

    def update(self, output: Sequence[Mapping[str, Any]]) -> None:
        """Take in what :class:`ValidationDice` made of a batch."""
        for case in output:
            value = float(case["dice"].nanmean())
            if value == value:
                domain = case["dice_domain"]
                self.values.setdefault(domain if isinstance(domain, str) else self.plan.names[int(domain)], []).append(value)

    def means(self) -> dict[str, float]:
        """Mean Dice by domain."""
        return {name: sum(values) / len(values) for name, values in sorted(self.values.items())}

    def compute(self) -> float:
        """The mean over the domains, or that of the target; 0 without any."""
        means = [mean for name, mean in self.means().items() if self.target in (None, name)]
        return sum(means) / len(means) if means else 0.0

    def attach(self, engine: Engine, name: str, *args: Any, **kwargs: Any) -> None:
        """As any metric of ignite, and the domains' means beside it."""
        super().attach(engine, name, *args, **kwargs)
        engine.add_event_handler(
            Events.EPOCH_COMPLETED, lambda e: e.state.metrics.update({f"dice_{key}": value for key, value in self.means().items()})
        )
