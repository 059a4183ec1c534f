"""Networks in the form in which they are exported (``configs/export.json``): a graph is of one domain."""

from __future__ import annotations

import torch
from torch import nn

from multidomain_segmentation.networks import DomainNetwork
from multidomain_segmentation.union import label_values
from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan
from tools.data.domains import AUTO

__all__ = ["SliceNetwork", "domain_labels", "union_labels"]


class SliceNetwork(nn.Module):
    """Slices of one domain to the classes of that domain.

    Args:
        network: with its weights.
        domain: name of the domain.

    Raises:
        DataError: the domain is unknown, or none is named.
    """

    def __init__(self, network: DomainNetwork, domain: str) -> None:
        super().__init__()
        _check_named(network.plan, domain)
        self.network, self.domain = network, domain

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Slices (B, 1, H, W) to logits (B, C, H, W)."""
        return self.network(image, self.domain)


def domain_labels(plan: DomainPlan, domain: str) -> dict[int, str]:
    """Label values and names of a domain in the order of its channels. Raises DataError when it is unknown or none is named."""
    _check_named(plan, domain)
    return dict(plan.domains[domain].labels)


def union_labels(plan: DomainPlan, domain: str) -> dict[int, str]:
    """Label values and names of the union of all domains, the network being one of ``domain``. Raises as :func:`domain_labels`."""
    _check_named(plan, domain)
    return label_values(plan)


def _check_named(plan: DomainPlan, domain: str) -> None:
    if domain == AUTO:
        raise DataError(f"a graph is of one domain, name it: --domain {' or '.join(plan.names)}")
    plan.index(domain)
