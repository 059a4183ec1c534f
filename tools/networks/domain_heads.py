"""The last layer of a multi-domain segmentation network: 1x1 convolutions to each domain's own classes.

Both heads answer a mixed batch by domain, in the form that a loss and an inference loop over::

    for name, (rows, logits) in head(features).items():
        loss = loss + segmentation_loss(logits, labels[rows])  # logits (n, C_name, *spatial)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from monai.networks.layers.factories import Conv
from torch import nn

from tools.data.checks import DataError
from tools.networks.domain_norm import DomainModules
from tools.networks.domain_selector import DomainSelector

__all__ = ["DomainHead", "DomainLogits", "UnionHead", "check_classes"]


class DomainLogits(NamedTuple):
    """One domain's part of a batch.

    rows: index of its samples in the batch: a LongTensor, or a slice where they lie together.
    logits: (n, C_k, *spatial), channel 0 the background.
    """

    rows: slice | torch.Tensor
    logits: torch.Tensor


class DomainHead(nn.Module):
    """A domain-specific segmentation layer: a 1x1 convolution to C_k classes per domain (Boutillon et al., 2022).

    Args:
        in_channels: channels of the features.
        classes: number of classes, with the background, by domain; the names are the selector's.
        selector: shared with the network's other domain-specific layers.
        spatial_dims: 2 or 3.

    Raises:
        DataError: the names differ from the selector's, or a domain has fewer than two classes.
    """

    def __init__(self, in_channels: int, classes: Mapping[str, int], selector: DomainSelector, spatial_dims: int = 2) -> None:
        super().__init__()
        check_classes(classes, selector)
        self.selector = selector
        convolution = Conv[Conv.CONV, spatial_dims]
        self.convs = DomainModules({name: convolution(in_channels, classes[name], 1) for name in selector.names})

    def forward(self, features: torch.Tensor) -> dict[str, DomainLogits]:
        """(B, C, *spatial) to the logits of every domain that occurs, by name, in the order of the domains.

        Raises:
            RuntimeError: outside of ``selector.use``.
            ValueError: the batch is not as large as the selector's.
        """
        return {name: DomainLogits(rows, self.convs[name](part)) for (name, rows), part in self.selector.parts(features)}

    def add_domain(self, name: str, classes: int, source: str | None = None) -> None:
        """Add a layer: a copy of that of ``source`` where it has as many classes, else a fresh one. The selector learns the name apart."""
        check_classes({name: classes})
        like = self.convs[self.selector.names[0] if source is None else source]
        if source is not None and like.out_channels == classes:
            self.convs[name] = copy.deepcopy(like).requires_grad_(True)  # even when the source is frozen
        else:
            self.convs[name] = type(like)(like.in_channels, classes, 1).to(like.weight)


class UnionHead(nn.Module):
    """One segmentation layer for all domains: the baseline with nothing domain-specific.

    Channel 0 is a background that all share; each domain's foreground classes follow as a block of their own, in the order of the
    domains. Of a domain's samples only the background and its own block are handed out.

    Args: see :class:`DomainHead`.
    """

    def __init__(self, in_channels: int, classes: Mapping[str, int], selector: DomainSelector, spatial_dims: int = 2) -> None:
        super().__init__()
        check_classes(classes, selector)
        self.selector = selector
        self.blocks: dict[str, slice] = {}
        count = 1
        for name in selector.names:
            self.blocks[name] = slice(count, count + classes[name] - 1)
            count += classes[name] - 1
        self.conv = Conv[Conv.CONV, spatial_dims](in_channels, count, 1)

    def forward(self, features: torch.Tensor) -> dict[str, DomainLogits]:
        """As :meth:`DomainHead.forward`."""
        parts = self.selector.parts(self.conv(features))
        return {name: DomainLogits(rows, torch.cat((part[:, :1], part[:, self.blocks[name]]), dim=1)) for (name, rows), part in parts}


def check_classes(classes: Mapping[str, int], selector: DomainSelector | None = None) -> None:
    """Check the number of classes of each domain: at least two, and given for exactly the selector's domains. Raises DataError."""
    if selector is not None and set(classes) != set(selector.names):
        raise DataError(f"classes are given for {sorted(classes)}, but the domains are {sorted(selector.names)}")
    for name, count in classes.items():
        if count < 2:
            raise DataError(f"domain {name!r} needs at least two classes, the background one of them, got {count}")
