"""A convolutional auto-encoder of segmentation masks over several domains: what anatomy looks like, as a compact code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from monai.networks.nets import AutoEncoder
from torch import nn

from tools.networks.domain_heads import check_classes
from tools.networks.domain_norm import DomainModules, convert_domain_norms
from tools.networks.levels import check_channels

__all__ = ["MaskAutoencoder"]


class MaskAutoencoder(nn.Module):
    """Masks of C_k classes -> code -> logits of C_k classes, 2D (the prior of Oktay et al., TMI 2018, over several domains).

    First and last layer are a domain's own, the trunk (MONAI's ``AutoEncoder``) is shared, its batch normalisation domain-specific.
    The code is a map, (B, channels[-1], H / 2^n, W / 2^n) with n levels, so that masks may have any size.

    Args:
        domains: number of classes, with the background, by domain.
        channels: channels of the n levels, each at half the resolution of the one before; the last are those of the code.
        width: channels between a domain's first or last layer and the trunk.

    Raises:
        DataError: a domain's name is unfit, its classes are fewer than two, or ``channels`` are no positive whole numbers.
    """

    def __init__(self, domains: Mapping[str, int], channels: Sequence[int] = (16, 32, 64, 16), width: int = 8) -> None:
        super().__init__()
        check_classes(domains)
        check_channels("prior_channels", channels)
        self.width = width
        self.trunk = AutoEncoder(2, width, width, channels=tuple(channels), strides=(2,) * len(channels), norm="batch")
        self.selector = convert_domain_norms(self.trunk, list(domains))
        self.first, self.last = DomainModules(), DomainModules()
        for name, classes in domains.items():
            self.first[name] = nn.Conv2d(classes, width, 3, padding=1)
            self.last[name] = nn.Conv2d(width, classes, 1)

    def encode(self, masks: torch.Tensor, domain: str) -> torch.Tensor:
        """Code of masks.

        Args:
            masks: one-hot labels or probabilities of one domain, (B, C_k, H, W), channel 0 the background.
            domain: its name.

        Returns:
            (B, channels[-1], ceil(H / 2^n), ceil(W / 2^n)).

        Raises:
            DataError: the domain is unknown.
            ValueError: the masks have not the domain's number of channels.
        """
        self.selector.index(domain)
        classes = self.last[domain].out_channels
        if masks.ndim != 4 or masks.shape[1] != classes:
            raise ValueError(f"masks of domain {domain!r} must be (B, {classes}, H, W), got {tuple(masks.shape)}")
        with self.selector.use(domain):
            return self.trunk.encode(F.relu(self.first[domain](masks)))

    def decode(self, code: torch.Tensor, domain: str) -> torch.Tensor:
        """Code (B, channels[-1], h, w) to logits (B, C_k, h 2^n, w 2^n). Raises DataError when the domain is unknown."""
        with self.selector.use(domain):
            return self.last[domain](F.relu(self.trunk.decode(code)))

    def forward(self, masks: torch.Tensor, domain: str) -> torch.Tensor:
        """Masks (B, C_k, H, W), as for :meth:`encode`, to logits of the same shape."""
        return self.decode(self.encode(masks, domain), domain)[..., : masks.shape[2], : masks.shape[3]]
