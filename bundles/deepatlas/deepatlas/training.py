"""One optimisation step of DeepAtlas, as the ``iteration_update`` of MONAI's ``SupervisedTrainer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine
from torch import nn

from deepatlas.losses import RegistrationLoss, SegmentationLoss
from deepatlas.stages import Schedule, Stage
from tools.bundle.checkpoint import plain
from tools.bundle.overrides import to_bool
from tools.bundle.precision import autocast, volume_training_dtype
from tools.bundle.steps import mean_over_processes, optimise, seeded_generator
from tools.bundle.teacher import check_background_weight, most_probable, running_average
from tools.data.augmentation import Augmentation
from tools.data.checks import DataError
from tools.registration.displacement import warp

__all__ = ["DeepAtlasUpdate"]


class DeepAtlasUpdate:
    """Trains the network whose turn it is, with the other one frozen.

    A batch holds N pairs: cases 0..N-1 are fixed (I_t), N..2N-1 moving (I_m). Geometry is augmented first, in steps
    of F_R by an augmentation of its own where one is given; the segmentation network learns from images with changed intensities as well.

    Args:
        segmentation: F_S, image (B, 1, D, H, W) to logits (B, C, D, H, W).
        registration: F_R, see :class:`tools.networks.registration.RegistrationNetwork`.
        segmentation_optimizer, registration_optimizer: their optimisers; the learning rates found in them are the highest.
        schedule: which network learns at which step, and from what.
        num_classes: C, with the background.
        registration_loss, segmentation_loss: the losses; defaults as documented there.
        augmentation: None switches it off.
        registration_augmentation: of the steps of F_R, whose images stay as bright as they are; None: as ``augmentation``.
        seed: with the step's number the only source of randomness.
        precision: "auto", "float32", "bf16" or "fp16" (:func:`tools.bundle.precision.volume_training_dtype`).
        max_norm: gradients are clipped to this norm.
        rank: number of this process.
        finetune: whether both networks come trained; no stage then replaces the registration's features by the segmentation's.
        teacher_decay: decay a segmentation step of the running average of F_S's weights, the teacher, that answers for missing labels
            (Tarvainen & Valpola, NeurIPS 2017); with 0 the teacher is F_S itself.
        hard_answers: whether both networks learn from the teacher's most probable classes instead of its probabilities. Of an uncertain
            voxel soft Dice asks for foreground, and a network that grows surer keeps the volume of the probabilities: with soft
            answers structures swell from turn to turn.
        background_weight: factor on the background's probability before the most probable class is taken, see
            :func:`tools.bundle.teacher.most_probable`.

    Attributes:
        teacher: the average, an ``AveragedModel``.

    Raises:
        DataError: a stage shares features between networks whose features differ, ``teacher_decay`` is not in [0, 1),
            or ``background_weight`` is not positive.
    """

    def __init__(
        self,
        segmentation: nn.Module,
        registration: nn.Module,
        segmentation_optimizer: torch.optim.Optimizer,
        registration_optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        num_classes: int,
        registration_loss: RegistrationLoss | None = None,
        segmentation_loss: SegmentationLoss | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        precision: str = "auto",
        max_norm: float = 1.0,
        rank: int = 0,
        finetune: bool | str = False,
        teacher_decay: float = 0.0,
        hard_answers: bool | str = False,
        background_weight: float = 1.0,
        registration_augmentation: Augmentation | None = None,
    ) -> None:
        check_background_weight(background_weight)
        self.networks = {"segmentation": segmentation, "registration": registration}
        self.optimizers = {"segmentation": segmentation_optimizer, "registration": registration_optimizer}
        self.schedule, self.num_classes = schedule, num_classes
        self.registration_loss = RegistrationLoss() if registration_loss is None else registration_loss
        self.segmentation_loss = SegmentationLoss() if segmentation_loss is None else segmentation_loss
        self.augmentation, self.registration_augmentation = augmentation, registration_augmentation or augmentation
        self.seed, self.max_norm, self.rank = int(seed), max_norm, rank
        self.finetune, self.hard_answers, self.background_weight = to_bool(finetune), to_bool(hard_answers), background_weight
        self.teacher = running_average(plain(segmentation), teacher_decay)
        if any(stage.share_features for stage in schedule.stages) and not self.finetune:
            self._check_features()
        device = next(segmentation.parameters()).device
        self.dtype = volume_training_dtype(precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self.base_rates = {name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in self.optimizers.items()}

    def __call__(self, engine: Engine, batch: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """One step; returns the loss and its weighted parts, named "<network>/<part>"."""
        number = engine.state.iteration - 1
        current = self.schedule(number)
        stage, name = current.stage, current.network
        if current.begins and stage.share_features and not self.finetune:
            self.share_features()
        for group, rate in zip(self.optimizers[name].param_groups, self.base_rates[name], strict=True):
            group["lr"] = rate * self.schedule.learning_rate(current)
        answers = self.stands_in(stage, name)
        images, augmented, labels, labelled = self.prepare(batch, engine.state.device, number, name == "segmentation", answers)
        for network_name, network in self.networks.items():
            network.train(network_name == name)
        advance = self.registration_step if name == "registration" else self.segmentation_step
        with self.autocast(images.device):
            parts = advance(stage, images, augmented, labels, labelled)
        values = {key if key == "loss" else f"{name}/{key}": value for key, value in parts._asdict().items()}
        values = optimise(self.networks[name], self.optimizers[name], self.scaler, values, self.max_norm, number)
        if name == "segmentation":
            self.teacher.update_parameters(plain(self.networks[name]))
        return values

    def share_features(self) -> None:
        """Start the registration network's feature extractor as a copy of the segmentation network's."""
        source, target = (plain(self.networks[name]) for name in ("segmentation", "registration"))
        target.features.load_state_dict(source.features.state_dict())

    def _check_features(self) -> None:
        shapes = []
        for network in self.networks.values():
            features = getattr(plain(network), "features", nn.Identity())
            shapes.append({key: value.shape for key, value in features.state_dict().items()})
        if not shapes[0] or shapes[0] != shapes[1]:
            raise DataError("share_features needs a segmentation and a registration network with the same features")

    def autocast(self, device: torch.device) -> Any:
        """Context of mixed precision, or none."""
        return autocast(self.dtype, device)

    def prepare(
        self, batch: Mapping[str, torch.Tensor], device: torch.device, step: int, intensities: bool, answers: str | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Images, images with changed intensities (2N, 1, D, H, W), labels (2N, C, D, H, W), labelled (2N,) bool.

        Args:
            batch: as :func:`deepatlas.sampling.collate_pairs` makes it.
            device: where to compute.
            step: number of the step, which with the seed decides the augmentation.
            intensities: whether the second result differs from the first, as F_S learns; else the augmentation is that of F_R.
            answers: "soft" or "hard": the teacher's answers stand in for missing labels, as probabilities or as most probable
                classes. It is shown the images as they are, and its answers are deformed with them: it knows those images best, and
                the network learns to answer alike whatever the pose. None: missing labels stay empty.
        """
        image = torch.as_tensor(batch["image"]).to(device).float()
        label = torch.as_tensor(batch["label"]).to(device)
        labelled = batch["labelled"].to(device)
        one_hot = torch.cat([label == c for c in range(self.num_classes)], dim=1).float()
        if answers and not labelled.all():
            one_hot[~labelled] = self.answer(image[~labelled], hard=answers == "hard")
        augmented = image
        augmentation = self.augmentation if intensities else self.registration_augmentation
        if augmentation is not None:
            pairs = len(image) // 2
            for pair in range(pairs):
                # Seeded per pair of the whole batch, so that splitting a batch over processes changes nothing.
                generator = seeded_generator(self.seed, step, self.rank * pairs + pair)
                rows = [pair, pair + pairs]
                image[rows], one_hot[rows] = augmentation.deform(image[rows], one_hot[rows], generator)
                if intensities:
                    augmented = image.clone() if augmented is image else augmented
                    augmented[rows] = augmentation.intensities(image[rows], generator)
        return image, augmented, one_hot, labelled

    def stands_in(self, stage: Stage, name: str) -> str | None:
        """What stands in for a missing label when the network of this name learns: "soft" or "hard" answers, or nothing."""
        source = stage.registration_from if name == "registration" else stage.segmentation_from
        if source not in ("segmentations", "answers"):
            return None
        return "hard" if self.hard_answers else "soft"

    @torch.no_grad()
    def answer(self, images: torch.Tensor, hard: bool = False) -> torch.Tensor:
        """The teacher's probabilities (N, C, D, H, W) for images (N, 1, D, H, W); where ``hard`` one for the most probable class."""
        with self.autocast(images.device):
            logits = self.teacher(images).float()
        if not hard:
            return logits.softmax(1)
        return F.one_hot(most_probable(logits, self.background_weight), self.num_classes).movedim(-1, 1).float()

    def registration_step(
        self, stage: Stage, images: torch.Tensor, augmented: torch.Tensor, labels: torch.Tensor, labelled: torch.Tensor
    ) -> Any:
        """Loss of F_R."""
        fixed, moving = images.chunk(2)
        output = self.networks["registration"](fixed, moving)
        segmentations = () if stage.registration_from == "images" else labels.chunk(2)
        parts = self.registration_loss(output, fixed, moving, *segmentations)
        if output.swapped is None:
            return parts
        back = self.registration_loss(output.swapped, moving, fixed, *segmentations[::-1])
        return type(parts)(*(torch.stack(both).mean() for both in zip(parts, back, strict=True)))

    def segmentation_step(
        self, stage: Stage, images: torch.Tensor, augmented: torch.Tensor, labels: torch.Tensor, labelled: torch.Tensor
    ) -> Any:
        """Loss of F_S by the four label cases of the paper; with the registration's field fixed.

        Raises:
            DataError: no case of the batch has a label, and no answer stands in for it.
        """
        if stage.segmentation_from == "labels":
            return self.segmentation_loss(self.networks["segmentation"](augmented).float(), labels)
        answered = self.stands_in(stage, "segmentation") is not None and not labelled.all()
        if not labelled.any() and not answered:
            raise DataError("a segmentation step needs a labelled case")
        fixed_labelled, moving_labelled = labelled.chunk(2)
        # Both labelled: nothing for F_S in L_a. Neither: only where an answer is carried (else the sampler draws no such pair).
        carrying = ~(fixed_labelled & moving_labelled) if stage.segmentation_from != "answers" else torch.zeros_like(fixed_labelled)
        to_fixed = ~fixed_labelled[carrying]
        if carrying.any():
            ddf = self.frozen_ddf(images, carrying)
            carried = warp(labels.chunk(2)[1][carrying], ddf)
            if stage.warp_labelled:
                # Image and label warped by one field agree, however good the registration is (Zhao et al., CVPR 2019).
                chosen = to_fixed & moving_labelled[carrying]
                rows = len(carrying) + carrying.nonzero()[chosen, 0]
                augmented, labels = augmented.clone(), labels.clone()
                augmented[rows], labels[rows] = warp(augmented[rows], ddf[chosen]), carried[chosen]
        logits = self.networks["segmentation"](augmented).float()
        compared: dict[str, torch.Tensor] = {}
        if labelled.any():
            compared |= {"logits": logits[labelled], "labels": labels[labelled]}
        if carrying.any():
            predicted_fixed, predicted_moving = (half[carrying] for half in logits.softmax(1).chunk(2))
            known = to_fixed.view(-1, 1, 1, 1, 1)
            compared["prediction"] = torch.where(known, predicted_fixed, warp(predicted_moving, ddf))
            compared["target"] = torch.where(known, carried, labels.chunk(2)[0][carrying])
        if answered:
            compared |= {"unlabelled": logits[~labelled], "answers": labels[~labelled]}
        parts = self.segmentation_loss(**compared)
        # Processes hold unlike numbers of labelled images: weighted so that the mean of their losses is that of one large batch.
        counts = torch.stack((labelled.sum(), carrying.sum(), (~labelled).sum())).float()
        shares = counts / mean_over_processes(counts).clamp_min(1e-6)
        weighted = [part * share for part, share in zip(parts[1:], shares, strict=True)]
        return type(parts)(sum(weighted), *weighted)

    @torch.no_grad()
    def frozen_ddf(self, images: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
        """Displacements (M, 3, D, H, W) of the chosen pairs, (N,) bool, by the frozen registration network."""
        fixed, moving = images.chunk(2)
        return plain(self.networks["registration"])(fixed[pairs], moving[pairs]).ddf
