"""The networks, built from plain numbers that the plan keeps, so that weights never need the training's config."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from torch import nn

from multidomain_segmentation.union import union_channels, union_names
from tools.bundle.checkpoint import load_weights, plain
from tools.bundle.overrides import to_bool
from tools.bundle.precision import autocast, autocast_dtype
from tools.bundle.run_data import RunData
from tools.data.domain_plan import DomainPlan
from tools.data.domains import AUTO, domain_name
from tools.networks.answering import Answering
from tools.networks.domain_norm import domain_parameters
from tools.networks.mask_autoencoder import MaskAutoencoder
from tools.networks.multidomain_unet import MultiDomainSegmentation

__all__ = [
    "DomainNetwork",
    "initial_network",
    "initial_prior",
    "learning_parameters",
    "network_from_plan",
    "prior_from_plan",
    "usable_prior_weight",
]

logger = logging.getLogger("training")

ABSENT = -1e4  # logit of the union's labels that a domain has not


def network_from_plan(plan: DomainPlan, weights: str | os.PathLike | None = None) -> MultiDomainSegmentation:
    """The segmentation network with the sizes the plan keeps in ``extra["network"]``.

    Args:
        plan: the plan of all domains.
        weights: file of ImageNet weights to start from, for a ResNet encoder (:func:`tools.networks.encoders2d.load_imagenet`).
    """
    options = dict(plan.extra.get("network", {}))
    for switch in {"domain_norms", "domain_heads", "deep_supervision"} & set(options):
        options[switch] = to_bool(options[switch])
    return MultiDomainSegmentation(plan.num_classes, weights=weights or None, **options)


def prior_from_plan(plan: DomainPlan) -> MaskAutoencoder:
    """The auto-encoder of masks with the sizes the plan keeps in ``extra["prior"]``."""
    return MaskAutoencoder(plan.num_classes, **plan.extra.get("prior", {}))


def initial_network(
    network: MultiDomainSegmentation,
    plan: DomainPlan,
    model_dir: str | os.PathLike,
    finetune: bool | str = False,
    new_domains: Collection[str] = (),
    source: str | None = None,
    device: str | torch.device = "cpu",
) -> MultiDomainSegmentation:
    """The network as its training begins, on its device.

    Args:
        network: what :func:`network_from_plan` made of the plan.
        plan: the plan of all domains.
        model_dir: folder of a trained model.
        finetune: whether to start from that model's weights.
        new_domains: domains of the plan that the model does not know yet: they are added to it.
        source: domain whose norms (and head, where it has as many classes) a new domain starts from; None for the mean of all norms.

    Raises:
        DataError: the model's weights are missing, or of another network or of other domains.
    """
    weights = Path(model_dir) / "model.pt"
    if not to_bool(finetune):
        return network.to(device)
    if not new_domains:
        return load_weights(weights, network).to(device)
    known = {name: domain for name, domain in plan.domains.items() if name not in new_domains}
    network = load_weights(weights, network_from_plan(replace(plan, domains=known)))
    for name in new_domains:
        network.add_domain(name, plan.num_classes[name], None if source is None else domain_name(source))
    return network.to(device)


def initial_prior(
    plan: DomainPlan, model_dir: str | os.PathLike, finetune: bool | str = False, weight: float = 1.0, device: str | torch.device = "cpu"
) -> MaskAutoencoder:
    """The auto-encoder as a training begins: a trained one where ``finetune`` says so, and its loss has a weight at all."""
    prior = prior_from_plan(plan)
    return (load_weights(Path(model_dir) / "anatomical_prior.pt", prior) if to_bool(finetune) and weight else prior).to(device)


def usable_prior_weight(run_data: RunData, model_dir: str | os.PathLike, finetune: bool | str = False, weight: float = 1.0) -> float:
    """Weight of the anatomical prior: 0, with a warning, where a model that goes on learning has no prior of all its domains.

    That is so of a model that was trained without one, or has got a further domain since. The plan is asked for only where it matters: the
    schedule, which depends on this weight, can be made without data.
    """
    if not to_bool(finetune) or not weight:
        return weight
    path = Path(model_dir) / "anatomical_prior.pt"
    expected, known = list(run_data.plan.names), "there is none"
    if path.is_file():
        heads = (key.split(".") for key in torch.load(path, map_location="cpu", weights_only=True))
        names = {parts[1] for parts in heads if parts[0] == "last"}
        if names == set(expected):
            return weight
        known = f"it is of {sorted(names)}"
    logger.warning(f"{path}: {known}, so the network goes on without an anatomical prior of the domains {expected}")
    return 0.0


def learning_parameters(network: nn.Module, domains: Sequence[str] = ()) -> Iterator[nn.Parameter]:
    """The parameters an optimiser gets: all, or those that belong to the named domains alone."""
    if not domains:
        return iter(plain(network).parameters())
    return (parameter for name in domains for parameter in domain_parameters(plain(network), name))


class DomainNetwork(Answering):
    """A tensor in, a tensor out: the network on slices, or on whole volumes slice by slice, of one domain a call.

    Slices smaller than the plan's patch are padded with zeros on both sides, as the crops it was trained on are: a network learns where
    in its field things lie, and what the edge of an image looks like. Its state dictionary is that of the network inside.

    Args:
        network: what answers.
        plan: the plan of all domains.
        domain: the domain of inputs that come without one. With "auto" it is the one noted in the image's ``meta["domain"]``, as this
            bundle's preprocessing does; a plain tensor (a check of shapes) is then taken for one of the first domain.
        slices: slices computed at once.
        precision: "auto", "float32", "bf16" or "fp16" (:func:`tools.bundle.precision.autocast_dtype`).

    Raises:
        DataError: the domain is unknown; the nearest one is named.
    """

    def __init__(
        self, network: MultiDomainSegmentation, plan: DomainPlan, domain: str = AUTO, slices: int = 8, precision: str = "float32"
    ) -> None:
        super().__init__()
        if domain != AUTO:
            plan.index(domain)
        self.network, self.plan, self.domain, self.slices, self.precision = plain(network), plan, domain, slices, precision

    def forward(self, images: torch.Tensor, domain: str | None = None) -> torch.Tensor:
        """Logits of slices or volumes, all of one domain.

        Args:
            images: (B, 1, H, W), or (B, 1, S, H, W) with S slices.
            domain: their domain's name.

        Returns:
            float32 (B, C, [S,] H, W). With ``domain`` given, C are its own classes; without, those of the union
            (:mod:`multidomain_segmentation.union`), for callers that know nothing of domains.

        Raises:
            DataError: the domain is unknown.
        """
        name = domain or self._noted(images)
        self.plan.index(name)
        images = images.as_tensor() if isinstance(images, MetaTensor) else images
        slices = images.movedim(2, 1).flatten(0, 1) if images.ndim == 5 else images
        # an exported graph takes any number of slices only where it does not count them
        parts = (slices,) if torch.jit.is_tracing() or torch.compiler.is_exporting() else slices.split(self.slices)
        with autocast(autocast_dtype(self.precision, images.device), images.device):
            logits = torch.cat([self._predict(part, name) for part in parts])
        if domain is None:
            own = union_channels(self.plan, name)
            order = [own.index(k) if k in own else len(own) for k in range(len(union_names(self.plan)))]
            logits = torch.cat((logits, torch.full_like(logits[:, :1], ABSENT)), dim=1)[:, order]
        return logits.unflatten(0, (images.shape[0], -1)).movedim(1, 2) if images.ndim == 5 else logits

    def _predict(self, slices: torch.Tensor, name: str) -> torch.Tensor:
        height, width = slices.shape[2:]
        rows, columns = (_not_negative(size - length) for size, length in zip(self.plan.patch_size, (height, width), strict=True))
        top, left = (rows + 1) // 2, (columns + 1) // 2
        padded = F.pad(slices, (left, columns - left, top, rows - top))
        return self.network.predict(padded, name)[..., top : top + height, left : left + width].float()

    def _noted(self, images: torch.Tensor) -> str:
        if self.domain != AUTO:
            return self.domain
        noted = images.meta.get("domain") if isinstance(images, MetaTensor) else None
        noted = noted[0] if isinstance(noted, (list, tuple)) and noted else noted
        return noted or self.plan.names[0]


def _not_negative(length: Any) -> Any:
    """max(0, length); sizes are symbols in a graph that is being exported, and tensors while TorchScript traces."""
    return length.clamp_min(0) if isinstance(length, torch.Tensor) else torch.sym_max(0, length)
