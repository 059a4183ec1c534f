"""One optimisation step, as the ``iteration_update`` of MONAI's ``SupervisedTrainer``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from ignite.engine import Engine
from torch import nn

from progressive_deepssm.losses import ShapeLoss
from progressive_deepssm.stages import Schedule
from tools.bundle.checkpoint import plain
from tools.bundle.precision import autocast, volume_training_dtype
from tools.bundle.steps import optimise, seeded_generator
from tools.data.augmentation import Augmentation
from tools.data.checks import DataError
from tools.data.plan import Plan
from tools.networks.shape_networks import TLShapeNetwork

__all__ = ["ShapeUpdate"]


class ShapeUpdate:
    """Trains the scales whose turn it is. Geometry is augmented for image, label and points alike, intensities of the image after it.

    Args:
        network: a :class:`tools.networks.shape_networks.ShapeNetwork`.
        optimizer: with the groups of :func:`progressive_deepssm.networks.parameter_groups`; the learning rates in it are the highest.
        schedule: what learns at which step.
        loss: of the network's output.
        plan: the plan.
        augmentation: None switches it off.
        seed: with the step's number the only source of randomness.
        precision: "auto", "float32", "bf16" or "fp16" (:func:`tools.bundle.precision.volume_training_dtype`).
        max_norm: gradients are clipped to this norm.
        rank: number of this process.

    Raises:
        DataError: the stages are those of another architecture.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        loss: ShapeLoss,
        plan: Plan,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        precision: str = "auto",
        max_norm: float = 1.0,
        rank: int = 0,
    ) -> None:
        _check_stages(schedule, plain(network))
        self.network, self.optimizer, self.schedule, self.loss, self.plan = network, optimizer, schedule, loss, plan
        self.augmentation, self.seed, self.max_norm, self.rank = augmentation, int(seed), max_norm, rank
        device = next(network.parameters()).device
        self.dtype = volume_training_dtype(precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.base_rates = [group["lr"] for group in optimizer.param_groups]

    def __call__(self, engine: Engine, batch: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """One step; returns the loss, its weighted parts, and "scale/<M>", the point loss of each scale that learns."""
        number = engine.state.iteration - 1
        step = self.schedule(number)
        stage, network = step.stage, plain(self.network)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * self.schedule.learning_rate(step, group.get("part") == "decoder")
        images, labels, points = self.prepare(batch, engine.state.device, number)
        self.network.train()
        options: dict = {"scales": stage.scales or len(network.scales)}
        if hasattr(network, "freeze_decoders"):
            network.freeze_decoders(not stage.decoder)
        if stage.learn != "points":
            options = {"scales": int(stage.learn != "autoencoder"), "points": points}
        with autocast(self.dtype, images.device):
            output = self.network(images, **options)
        parts = self.loss(output, points, labels, stage.learn)
        values = {key: getattr(parts, key) for key in ("loss", "points", "segmentation", "uncertainty")}
        if stage.learn != "points":
            values["codes"] = parts.codes
        sizes = network.scales if stage.learn == "points" else network.scales[-1:]
        values |= {f"scale/{size}": value for size, value in zip(sizes, parts.scales)}
        return optimise(self.network, self.optimizer, self.scaler, values, self.max_norm, number)

    def prepare(
        self, batch: Mapping[str, torch.Tensor], device: torch.device, step: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Augmented images (B, 1, D, H, W), one-hot labels (B, C, D, H, W) and points (B, M, 3), mm.

        Args:
            batch: as :func:`progressive_deepssm.sampling.collate_cases` makes it.
            device: where to compute.
            step: number of the step, which with the seed decides the augmentation.
        """
        image, label, points = (torch.as_tensor(batch[key]).to(device) for key in ("image", "label", "points"))
        image, points = image.float(), points.float()
        one_hot = torch.cat([label == c for c in range(self.plan.num_classes)], dim=1).float()
        if self.augmentation is None:
            return image, one_hot, points
        spacing = torch.tensor(self.plan.spacing, device=device)
        centre = (torch.tensor(self.plan.size, device=device, dtype=torch.float32) - 1) / 2
        voxels = points / spacing + centre
        deformed = []
        for row in range(len(image)):
            # Seeded per case of the whole batch, so that splitting a batch over processes changes nothing.
            generator = seeded_generator(self.seed, step, self.rank * len(image) + row)
            case = slice(row, row + 1)
            moved = self.augmentation.deform_with_points(image[case], one_hot[case], voxels[case], generator)
            deformed.append((self.augmentation.intensities(moved[0], generator), *moved[1:]))
        image, one_hot, voxels = (torch.cat(parts) for parts in zip(*deformed))
        return image, one_hot, (voxels - centre) * spacing


def _check_stages(schedule: Schedule, network: nn.Module) -> None:
    """TL-DeepSSM must learn its auto-encoder, and the progressive network has none."""
    hint = "take architecture and stages from experiments/tl_deepssm.json"
    if not isinstance(network, TLShapeNetwork):
        odd = next((stage for stage in schedule.stages if stage.learn != "points"), None)
        if odd is not None:
            raise DataError(f"stage {odd.name!r}: learn {odd.learn!r} is of TL-DeepSSM; {hint}")
    elif not any(stage.learn in ("autoencoder", "codes_and_autoencoder") for stage in schedule.stages):
        raise DataError(f"architecture 'tl': no stage learns the auto-encoder; {hint}")
