"""The losses of the two networks, composed of the shared parts; each returns its parts by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.losses import DeepSupervisionLoss, DiceLoss
from torch import nn

from tools.data.checks import DataError
from tools.losses import AnatomicalPriorLoss, MultiscaleContrastiveLoss
from tools.networks.multidomain_unet import MultiDomainOutput

__all__ = ["DomainParts", "MultiDomainLoss", "OverlapLoss", "ReconstructionParts"]

WEIGHTINGS = ("equal", "loss")


class DomainParts(NamedTuple):
    """Weighted parts of the segmentation network's loss and their sum, scalars; and L_seg of each domain, not divided."""

    loss: torch.Tensor
    segmentation: torch.Tensor
    contrastive: torch.Tensor
    prior: torch.Tensor
    domains: dict[str, torch.Tensor]


class ReconstructionParts(NamedTuple):
    """Loss of the auto-encoder, a scalar; and that of each domain, not divided."""

    loss: torch.Tensor
    domains: dict[str, torch.Tensor]


class OverlapLoss(nn.Module):
    """L_seg of one domain: soft Dice of the structures, over all slices at once, + cross-entropy of all classes.

    In single slices small structures come and go; the overlap of all of a batch's slices together is defined wherever the domain's
    structures are seen at all.

    Args:
        cross_entropy_weight: of the cross-entropy, relative to Dice.
    """

    def __init__(self, cross_entropy_weight: float = 1.0) -> None:
        super().__init__()
        self.dice, self.cross_entropy_weight = DiceLoss(include_background=False, softmax=True, batch=True), cross_entropy_weight

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Logits and one-hot or soft labels (n, C, H, W), channel 0 the background, to a scalar."""
        loss = self.dice(logits, labels)
        return loss + self.cross_entropy_weight * F.cross_entropy(logits, labels) if self.cross_entropy_weight else loss


class MultiDomainLoss(nn.Module):
    """sum_k w_k L_seg,k + l_c L_con + l_p (1/K) sum_k L_prior,k over the K domains of a batch (Boutillon et al., 2022).

    Ours: the weights w_k of the domains sum to 1, so that the size of a step does not depend on how many there are. They are 1/K, or in
    proportion to the domain's own loss, w_k = L_seg,k / sum_j L_seg,j without gradient: what is hard, or learns late, counts more (after
    Guo et al., Dynamic Task Prioritization, ECCV 2018, by the loss instead of a measure of performance).

    Of a network with deep supervision, L_seg,k is the mean over its scales, weighted 1, 1/2, 1/4, ... from the finest (at least 1/16), each
    against the label's average over its pixels.

    Args:
        prior: the auto-encoder of masks, or None where there is no prior; it is held, not registered (its weights are not learnt here).
        contrastive_weight: l_c; 0 switches the term off.
        prior_weight: l_p; 0 switches the term off.
        cross_entropy_weight: see :class:`OverlapLoss`.
        temperature: of the contrastive term.
        domain_weighting: "equal" or "loss", see above.

    Raises:
        DataError: a weight is negative, the prior has a weight and is missing, or ``domain_weighting`` is unknown.
    """

    def __init__(
        self,
        prior: nn.Module | None = None,
        contrastive_weight: float = 0.1,
        prior_weight: float = 0.1,
        cross_entropy_weight: float = 1.0,
        temperature: float = 0.1,
        domain_weighting: str = "equal",
    ) -> None:
        super().__init__()
        if min(contrastive_weight, prior_weight, cross_entropy_weight) < 0:
            raise DataError("the weights of a loss must not be negative")
        if prior_weight and prior is None:
            raise DataError("prior_weight needs a prior")
        if domain_weighting not in WEIGHTINGS:
            raise DataError(f"domain_weighting must be one of {', '.join(WEIGHTINGS)}, not {domain_weighting!r}")
        self.overlap, self.contrast = OverlapLoss(cross_entropy_weight), MultiscaleContrastiveLoss(temperature)
        self.scales = DeepSupervisionLoss(self.overlap)
        self.scales.interp_mode = "area"
        self.prior = None if prior is None else AnatomicalPriorLoss(prior)
        self.contrastive_weight, self.prior_weight = contrastive_weight, prior_weight
        self.domain_weighting = domain_weighting

    def forward(self, output: MultiDomainOutput, labels: Mapping[str, torch.Tensor], domains: torch.Tensor) -> DomainParts:
        """Loss of the segmentation network.

        Args:
            output: the network's, of a batch of B slices.
            labels: by domain, one-hot or soft (n, C_k, H, W), in the order of the domain's logits.
            domains: LongTensor (B,), the domain of each slice.
        """
        zero = next(iter(output.logits.values())).logits.new_zeros((), dtype=torch.float32)
        contrastive, priors = zero, [zero]
        logits = {name: answer.logits.float() for name, answer in output.logits.items()}
        weight = sum(self.scales.get_weights(1 + len(output.coarse)))
        overlaps = {
            name: self.scales([value, *(coarse[name].logits for coarse in output.coarse)], labels[name]) / weight
            for name, value in logits.items()
        }
        if self.contrastive_weight and output.embeddings:
            contrastive = self.contrastive_weight * self.contrast(output.embeddings, domains)
        if self.prior_weight:
            priors = [self.prior(value.softmax(1), labels[name], name) for name, value in logits.items()]
        losses = torch.stack(list(overlaps.values()))
        weights = losses.detach() if self.domain_weighting == "loss" else torch.ones_like(losses)
        segmentation, prior = (weights * losses).sum() / weights.sum(), self.prior_weight * sum(priors) / len(overlaps)
        return DomainParts(segmentation + contrastive + prior, segmentation, contrastive, prior, overlaps)

    def reconstruction(
        self, autoencoder: nn.Module, labels: Mapping[str, torch.Tensor], shown: Mapping[str, torch.Tensor] | None = None
    ) -> ReconstructionParts:
        """Loss of the auto-encoder on the masks of each domain, (n, C_k, H, W): (1/K) sum_k L_seg(decoded, mask).

        Args:
            autoencoder: :class:`tools.networks.mask_autoencoder.MaskAutoencoder`.
            labels: by domain, the masks that it is to decode.
            shown: the masks that it encodes, where these are not the same.
        """
        shown = labels if shown is None else shown
        parts = {name: self.overlap(autoencoder(shown[name], name).float(), masks) for name, masks in labels.items()}
        return ReconstructionParts(sum(parts.values()) / len(parts), parts)
