"""A 2D segmentation network over the union of several data sets (Boutillon et al., arXiv 2207.13502)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from monai.networks.blocks import UpSample
from monai.networks.nets.attentionunet import AttentionBlock
from monai.networks.nets.basic_unet import TwoConv
from torch import nn

from tools.data.checks import DataError
from tools.networks.domain_heads import DomainHead, DomainLogits, UnionHead, check_classes
from tools.networks.domain_norm import add_domain_norms, convert_domain_norms
from tools.networks.domain_selector import DomainSelector
from tools.networks.encoders2d import ACTIVATION, make_encoder
from tools.networks.levels import check_channels
from tools.networks.projection import MultiscaleProjection

__all__ = ["MultiDomainOutput", "MultiDomainSegmentation", "UpBlock"]


class MultiDomainOutput(NamedTuple):
    """What the network answers to a batch of B slices.

    logits: by domain, of those that occur: (rows, logits (n, C_k, H, W)), see :class:`tools.networks.domain_heads.DomainLogits`.
    embeddings: one (B, E) of length one for each scale of the encoder, finest first; empty without projection.
    coarse: the logits at 1/2, 1/4, ... of the decoder's finest resolution, each like ``logits``; empty without deep supervision.
    """

    logits: dict[str, DomainLogits]
    embeddings: list[torch.Tensor]
    coarse: list[dict[str, DomainLogits]]


class UpBlock(nn.Module):
    """Upsample by two, join the skip connection, convolve twice.

    Args:
        in_channels: of the coarser features.
        skip_channels: of the encoder's features at the finer level, 0 for none.
        out_channels: of the answer.
        attention: whether the skip passes MONAI's additive attention gate (Oktay et al., MIDL 2018).
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, attention: bool = False) -> None:
        super().__init__()
        width = max(1, in_channels // 2)
        self.upsample = UpSample(2, in_channels, width, 2, mode="deconv")
        self.gate = AttentionBlock(2, max(1, skip_channels // 2), width, skip_channels) if attention and skip_channels else None
        self.convs = TwoConv(2, width + skip_channels, out_channels, act=ACTIVATION, norm="batch", bias=False)

    def forward(self, features: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        """(B, in_channels, h, w) and (B, skip_channels, 2h, 2w) to (B, out_channels, 2h, 2w)."""
        features = self.upsample(features)
        if skip is None:
            return self.convs(features)
        return self.convs(torch.cat((skip if self.gate is None else self.gate(g=features, x=skip), features), dim=1))


class MultiDomainSegmentation(nn.Module):
    """U-Net with shared filters, a batch normalisation and a last layer for each domain, and embeddings for contrastive learning.

    Args:
        domains: number of classes, with the background, by domain; their order is that of the indices.
        encoder: "plain", or one of MONAI's ResNets ("resnet18", ...).
        channels: of the plain encoder's levels, finest first.
        decoder_channels: of the decoder's levels, coarsest first; by default the encoder's own, with 32 and 16 where a ResNet has none.
        weights: file of ImageNet weights in torchvision's form for a ResNet encoder; every domain's norms start from its norms.
        skips: "plain" or "attention".
        domain_norms: whether each domain has norms of its own; if not, all share.
        domain_heads: whether each domain has a last layer of its own; if not, one has a shared background and all domains' classes.
        embedding: size E of the embeddings, 0 for no projection.
        deep_supervision: whether the coarser levels have last layers too, which only training asks (Lee et al., AISTATS 2015).

    Raises:
        DataError: a domain's name or number of classes is unfit, or so are the weights; the encoder or the kind of skips is unknown, the
            decoder's levels do not fit the encoder's, or ``embedding`` is no size.
    """

    def __init__(
        self,
        domains: Mapping[str, int],
        encoder: str = "plain",
        channels: Sequence[int] = (24, 48, 96, 160),
        decoder_channels: Sequence[int] | None = None,
        weights: str | os.PathLike | None = None,
        skips: str = "plain",
        domain_norms: bool = True,
        domain_heads: bool = True,
        embedding: int = 64,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if skips not in ("plain", "attention"):
            raise DataError(f"skips must be 'plain' or 'attention', not {skips!r}")
        if not isinstance(embedding, int) or isinstance(embedding, bool) or embedding < 0:
            raise DataError(f"embedding must be a whole number from 0 on, not {embedding!r}")
        self.selector = DomainSelector(list(domains))
        self.encoder = make_encoder(encoder, channels, weights)
        skip_channels = list(self.encoder.channels[-2::-1]) + [0] * (self.encoder.strides[0] > 1)
        if decoder_channels is None:
            decoder_channels = skip_channels if skip_channels[-1] else [*skip_channels[:-2], 32, 16]
        check_channels("decoder_channels", decoder_channels)
        if len(decoder_channels) != len(skip_channels):
            raise DataError(f"decoder_channels must have {len(skip_channels)} levels, got {tuple(decoder_channels)}")
        coarser = (self.encoder.channels[-1], *decoder_channels)
        self.decoder = nn.ModuleList(UpBlock(*sizes, skips == "attention") for sizes in zip(coarser, skip_channels, decoder_channels))
        self.projection = MultiscaleProjection(self.encoder.channels, embedding) if embedding else None
        if domain_norms:
            convert_domain_norms(self, self.selector)
        head = DomainHead if domain_heads else UnionHead
        self.head = head(decoder_channels[-1], domains, self.selector)
        # finest first
        self.coarse_heads = nn.ModuleList(head(size, domains, self.selector) for size in coarser[-2::-1] if deep_supervision)
        self.to(memory_format=torch.channels_last)  # on a CPU a step of four domains takes a sixth less, an answer a third

    def forward(self, images: torch.Tensor, domains: str | Sequence[str] | torch.Tensor) -> MultiDomainOutput:
        """Slices (B, 1, H, W) of any size, and the domain of all (a name) or of each (names, or a LongTensor (B,)).

        Cheapest when the samples of a domain lie together in the batch.

        Raises:
            DataError: a domain is unknown; the message names the known ones.
            ValueError: there are not as many domains as images.
        """
        with self.selector.use(domains, images.device):
            self.selector.check_size(images)
            features = self._encode(images)
            embeddings = [] if self.projection is None else self.projection(features)
            levels = self._decode(features)
            sizes = [[-(-size // 2**i) for size in images.shape[2:]] for i in range(len(levels))]
            coarse = [self._answer(*scale) for scale in zip(self.coarse_heads, levels[-2::-1], sizes[1:])]
            return MultiDomainOutput(self._answer(self.head, levels[-1], sizes[0]), embeddings, coarse)

    def predict(self, images: torch.Tensor, domain: str) -> torch.Tensor:
        """Logits (B, C_k, H, W) of slices (B, 1, H, W) that are all of one domain. Raises DataError when it is unknown."""
        with self.selector.use(domain, images.device):
            return self._answer(self.head, self._decode(self._encode(images))[-1], images.shape[2:])[domain].logits

    def add_domain(self, name: str, classes: int, source: str | None = None) -> None:
        """Widen by one domain: norms from ``source`` or the mean of all, a head as :meth:`DomainHead.add_domain` says; the rest untouched.

        Raises:
            DataError: the network has one last layer for all domains, the name is taken or unfit, the source unknown, or there are fewer
                than two classes.
        """
        if not isinstance(self.head, DomainHead):
            raise DataError("only a network with a last layer for each domain (domain_heads true) takes another domain")
        check_classes({name: classes})
        add_domain_norms(self, self.selector, name, source)
        for head in (self.head, *self.coarse_heads):
            head.add_domain(name, classes, source)

    def _encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        rest = [-n % self.encoder.strides[-1] for n in images.shape[2:]]
        images = F.pad(images, (0, rest[1], 0, rest[0]), mode="replicate") if any(rest) else images
        return self.encoder(images.contiguous(memory_format=torch.channels_last))

    def _decode(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """The encoder's coarsest features, and what each block of the decoder makes of them."""
        skips, levels = features[-2::-1], [features[-1]]
        for i, block in enumerate(self.decoder):
            levels.append(block(levels[-1], skips[i] if i < len(skips) else None))
        return levels

    @staticmethod
    def _answer(head: nn.Module, level: torch.Tensor, size: Sequence[int]) -> dict[str, DomainLogits]:
        return head(level[..., : size[0], : size[1]])
