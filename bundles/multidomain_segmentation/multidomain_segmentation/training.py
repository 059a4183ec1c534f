"""One optimisation step of the multi-domain method, as the ``iteration_update`` of MONAI's ``SupervisedTrainer``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from ignite.engine import Engine
from torch import distributed, nn

from multidomain_segmentation.losses import MultiDomainLoss
from multidomain_segmentation.sampling import UNLABELLED
from multidomain_segmentation.stages import Schedule
from tools.bundle.checkpoint import plain
from tools.bundle.overrides import to_bool
from tools.bundle.precision import autocast, autocast_dtype
from tools.bundle.steps import name_seed, optimise, processes, seeded_generator
from tools.bundle.teacher import check_background_weight, most_probable, running_average
from tools.data.augmentation import Augmentation
from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan
from tools.networks.domain_norm import DomainModules
from tools.networks.mask_autoencoder import MaskAutoencoder

__all__ = ["MultiDomainUpdate"]

logger = logging.getLogger("training")


class MultiDomainUpdate:
    """Trains what the schedule says: first the auto-encoder of masks, then the segmentation network with that prior frozen.

    A batch holds slices of several domains, those of one domain together. Geometry is augmented for image and label alike; the
    segmentation network learns from images with changed intensities as well.

    Args:
        network: the segmentation network, :class:`tools.networks.multidomain_unet.MultiDomainSegmentation`.
        prior: the auto-encoder; with several processes it is not wrapped, its gradients are averaged here.
        optimizer, prior_optimizer: theirs; the learning rates found in them are the highest.
        schedule: what learns at which step.
        plan: the plan of all domains.
        loss: holds the prior as well.
        augmentation: None switches it off.
        seed: with the step's number the only source of randomness.
        precision: "auto", "float32", "bf16" or "fp16" (:func:`tools.bundle.precision.autocast_dtype`).
        max_norm: gradients are clipped to this norm.
        rank: number of this process.
        new_domains: domains whose norms and heads alone learn; everything else then stays as it is, running statistics included.
        finetune: whether the networks come trained.
        teacher_decay: decay a step of the running average of the network's weights and norms' statistics, the teacher, whose most probable
            classes stand in for missing labels (Tarvainen & Valpola, NeurIPS 2017).
        background_weight: factor on the background's probability there, see :func:`tools.bundle.teacher.most_probable`.
        prior_softness: the prior is shown masks that are mixed with the uniform distribution over their classes, each by a share drawn
            from 0 to this, and decodes the clean ones. An auto-encoder of hard masks alone takes an answer that is right and not certain
            for another shape.

    Attributes:
        teacher: the average, an ``AveragedModel``; None where no stage learns from answers.

    Raises:
        DataError: the loss gives the prior a weight, no stage trains it before, and it does not come trained either; it gives the
            contrastive term one, and the network has no projection; the first stage of a network that does not come trained learns from
            answers; or ``teacher_decay`` is not in [0, 1), or ``background_weight`` not positive.
    """

    def __init__(
        self,
        network: nn.Module,
        prior: MaskAutoencoder,
        optimizer: torch.optim.Optimizer,
        prior_optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        plan: DomainPlan,
        loss: MultiDomainLoss,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        precision: str = "auto",
        max_norm: float = 1.0,
        rank: int = 0,
        new_domains: Sequence[str] = (),
        finetune: bool | str = False,
        teacher_decay: float = 0.99,
        background_weight: float = 1.0,
        prior_softness: float = 0.0,
    ) -> None:
        check_background_weight(background_weight)
        if loss.prior_weight and not to_bool(finetune) and schedule.begin("prior") >= schedule.begin("network"):
            raise DataError("prior_weight needs a stage that trains the prior before the network; or give --prior_weight 0")
        if loss.contrastive_weight and plain(network).projection is None:
            raise DataError("contrastive_weight needs embeddings: give --embedding from 1 on, or --contrastive_weight 0")
        first = next((stage for stage in schedule.stages if stage.network == "network"), None)
        if first is not None and first.learn_from == "answers" and not to_bool(finetune):
            raise DataError(
                f"the stage {first.name!r} learns from the answers of a network that has learnt nothing yet: put one from labels first"
            )
        self.networks = {"network": network, "prior": prior}
        self.optimizers = {"network": optimizer, "prior": prior_optimizer}
        self.schedule, self.plan, self.loss, self.augmentation = schedule, plan, loss, augmentation
        self.background_weight, self.prior_softness = background_weight, prior_softness
        self.seed, self.max_norm, self.rank, self.new_domains = int(seed), max_norm, rank, tuple(new_domains)
        device = next(network.parameters()).device
        self.dtype = autocast_dtype(precision, device)
        # Averaged weights do not fit the norms' statistics of the latest ones: without these the answers are nonsense.
        self.teacher = running_average(plain(network), teacher_decay, buffers=True) if schedule.needs_unlabelled else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        self._looked_at_pairs = not loss.contrastive_weight or self.rank != 0
        self.base_rates = {name: [group["lr"] for group in optimizer.param_groups] for name, optimizer in self.optimizers.items()}
        if self.new_domains:
            self._freeze()

    def __call__(self, engine: Engine, batch: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """One step; returns the loss and its weighted parts, named "<network>/<part>", and each domain's L_seg."""
        number = engine.state.iteration - 1
        step = self.schedule(number)
        name = step.stage.network
        for group, rate in zip(self.optimizers[name].param_groups, self.base_rates[name], strict=True):
            group["lr"] = rate * self.schedule.learning_rate(step)
        images, labels, domains = self.prepare(batch, engine.state.device, number, images=name == "network")
        self.networks["prior"].train(name == "prior")
        if name == "network":
            self._warn_without_pairs(batch["domain"])
            self._train_network()
        with autocast(self.dtype, images.device):
            if name == "network":
                parts = self.loss(self.networks["network"](images, domains), labels, domains)
                values = {f"network/{key}": getattr(parts, key) for key in ("segmentation", "contrastive", "prior")}
            else:
                shown = self.soften(labels, number) if self.prior_softness else None
                parts = self.loss.reconstruction(self.networks["prior"], labels, shown)
                values = {}
        network = self.networks[name]
        share = partial(_share, network) if name == "prior" and processes() > 1 else None
        values = {"loss": parts.loss} | values | {f"{name}/{domain}": value for domain, value in parts.domains.items()}
        values = optimise(network, self.optimizers[name], self.scaler, values, self.max_norm, number, share)
        if name == "network" and self.teacher is not None:
            self.teacher.update_parameters(plain(network))
        return values

    def prepare(
        self, batch: Mapping[str, torch.Tensor], device: torch.device, step: int, images: bool = True
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Augmented images (B, 1, H, W), one-hot labels by domain (n, C_k, H, W), and domains (B,).

        For a missing label the teacher answers. It is shown the slice as it is, and its answer is deformed with it: so the network learns
        to answer alike whatever the pose.

        Args:
            batch: "image" (B, 1, H, W), "label" (B, H, W) channel numbers of the domain, or ``UNLABELLED`` throughout, "domain" (B,).
            device: where the answers shall lie.
            step: number of the step.
            images: whether intensities are augmented too.
        """
        image, label, domains = (torch.as_tensor(batch[key]) for key in ("image", "label", "domain"))
        # Looked up before anything is on a GPU, which would have to be waited for.
        chosen = {}
        for index in domains.unique().tolist():
            rows = (domains == index).nonzero()[:, 0]
            chosen[index] = rows.to(device), (label[rows, 0, 0] == UNLABELLED).nonzero()[:, 0].to(device)
        image, label, domains = (tensor.to(device) for tensor in (image, label, domains))
        image, labels = image.float(), {}
        for index, (rows, missing) in chosen.items():
            name = self.plan.names[index]
            part, target = image[rows], label[rows]
            if len(missing):
                target[missing] = self.answer(part[missing], name)
            one_hot = F.one_hot(target, self.plan.domains[name].num_classes).movedim(-1, 1).float()
            if self.augmentation is not None:
                # Seeded by the domain's name: which others are trained beside it changes nothing for it.
                generator = seeded_generator(self.seed, step, name_seed(name), self.rank)
                augmentation = replace(self.augmentation, spacing=self.plan.domains[name].spacing)
                part, one_hot = augmentation.deform(part, one_hot, generator)
                image[rows] = augmentation.intensities(part, generator) if images else part
            labels[name] = one_hot
        return image, labels, domains

    def soften(self, labels: Mapping[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """One-hot masks by domain, (n, C_k, H, W), each mixed with the uniform distribution over its classes, see ``prior_softness``."""
        softened = {}
        for name, masks in labels.items():
            generator = seeded_generator(self.seed, step, name_seed(name), self.rank, 1)
            share = self.prior_softness * torch.rand(len(masks), 1, 1, 1, generator=generator).to(masks.device)
            softened[name] = (1 - share) * masks + share / masks.shape[1]
        return softened

    @torch.no_grad()
    def answer(self, images: torch.Tensor, domain: str) -> torch.Tensor:
        """The teacher's most probable classes (n, H, W) for slices (n, 1, H, W) of one domain."""
        with autocast(self.dtype, images.device):
            return most_probable(self.teacher.module.predict(images, domain), self.background_weight)

    def _warn_without_pairs(self, domains: torch.Tensor) -> None:
        # once: every step has as many slices of each domain as the first one
        if not self._looked_at_pairs and len(domains) == len(set(torch.as_tensor(domains).tolist())):
            logger.warning("no two slices of a step are of one domain, so that the contrastive term is 0: raise --slices_per_domain")
        self._looked_at_pairs = True

    def _freeze(self) -> None:
        network = plain(self.networks["network"]).requires_grad_(False)
        for part in _parts_of(network, self.new_domains):
            part.requires_grad_(True)

    def _train_network(self) -> None:
        if not self.new_domains:
            self.networks["network"].train()
            return
        self.networks["network"].eval()
        for part in _parts_of(plain(self.networks["network"]), self.new_domains):
            part.train()


def _parts_of(network: nn.Module, domains: Sequence[str]) -> list[nn.Module]:
    """The modules that belong to the named domains alone."""
    found = [module for module in network.modules() if isinstance(module, DomainModules)]
    return [module[name] for module in found for name in domains if name in module]


def _share(network: nn.Module) -> None:
    # DistributedDataParallel wants one forward pass a step, the auto-encoder has one a domain.
    for parameter in network.parameters():
        if parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= processes()
    for buffer in network.buffers():
        distributed.broadcast(buffer, 0)
