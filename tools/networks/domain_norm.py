"""Domain-specific batch normalisation: shared filters, separate statistics and affine parameters per domain (Chang et al., CVPR 2019).

A batch may hold several domains. Which sample is of which reaches every layer of a network through the one
:class:`DomainSelector` they share, for the time of a forward pass::

    selector = convert_domain_norms(network, ["ankle", "knee"])
    with selector.use(domains, images.device):
        network(images)

Parts are keyed by the domain's name in the state dictionary, so that weights of other domains are refused, not mistaken. With
``DistributedDataParallel`` pass ``find_unused_parameters=True`` unless every process's every batch holds all domains, and leave
``SyncBatchNorm`` away, which would wait for the processes that lack a domain.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tools.data.checks import DataError
from tools.networks.domain_selector import DomainSelector

__all__ = ["DomainBatchNorm", "DomainModules", "add_domain_norms", "convert_domain_norms", "domain_parameters"]


class DomainModules(nn.ModuleDict):
    """One module a domain, keyed by the domain's name. Loading (strictly) the weights of other domains raises DataError naming both."""

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs):
        found = {key.removeprefix(prefix).split(".")[0] for key in state_dict if key.startswith(prefix)}
        if strict and found and found != set(self):
            raise DataError(f"weights of the domains {sorted(found)}, but the network's are {sorted(self)}")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)


class DomainBatchNorm(nn.Module):
    """A batch normalisation for each domain, applied to that domain's samples of a mixed batch.

    The same as separate ``torch.nn.BatchNorm`` layers on the groups, with one addition: in training, where a domain's group has a single
    value a channel (one sample, no spatial extent), torch raises; here the running statistics are used, and not updated.

    Args:
        norm: batch normalisation of any dimension; every domain starts from a copy of its affine parameters and running statistics.
        selector: says the domains and, during a forward pass, which samples are of which.
    """

    def __init__(self, norm: _BatchNorm, selector: DomainSelector) -> None:
        super().__init__()
        self.selector = selector
        self.norms = DomainModules({name: copy.deepcopy(norm) for name in selector.names})

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) to the same shape.

        Raises:
            RuntimeError: outside of ``selector.use``.
            ValueError: the batch is not as large as the selector's.
        """
        return self.selector.map(lambda name, group: _normalise(self.norms[name], group), features)

    def add_domain(self, name: str, source: str | None = None) -> None:
        """Add a norm copied from that of ``source``, or with the mean of all norms; the others stay as they are."""
        added = copy.deepcopy(self.norms[self.selector.names[0] if source is None else source])
        if source is None:
            states = [norm.state_dict() for norm in self.norms.values()]
            # Counts are integers: average in float, load_state_dict copies back into the count's own type.
            added.load_state_dict({key: torch.stack([state[key].float() for state in states]).mean(0) for key in states[0]})
        self.norms[name] = added.requires_grad_(True)  # even when the source is frozen


def _normalise(norm: _BatchNorm, group: torch.Tensor) -> torch.Tensor:
    if norm.training and norm.running_mean is not None and group.numel() == group.shape[1]:
        return nn.functional.batch_norm(group, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    return norm(group)


def convert_domain_norms(network: nn.Module, domains: Sequence[str] | DomainSelector) -> DomainSelector:
    """Replace every batch normalisation inside a network, in place, by a domain-specific one.

    Affine parameters and running statistics (pre-trained ones too) are copied to all domains; a norm used in several places stays shared.

    Args:
        network: any module that holds batch normalisations, at any depth; not itself one.
        domains: names, in the order of their indices; or a selector to share with layers that exist already.

    Returns:
        the selector that all converted layers share; a deep copy of the network has its own.

    Raises:
        DataError: a name is empty, doubled or unfit (see :class:`DomainSelector`).
        ValueError: there is nothing to convert, or the network is converted already.
    """
    selector = domains if isinstance(domains, DomainSelector) else DomainSelector(domains)
    modules = list(network.modules())
    if any(isinstance(module, DomainBatchNorm) for module in modules):
        raise ValueError("the network's batch normalisations are domain-specific already")
    converted: dict[int, DomainBatchNorm] = {}
    for parent in modules:
        for name, child in parent._modules.items():
            if isinstance(child, _BatchNorm):
                if id(child) not in converted:
                    converted[id(child)] = DomainBatchNorm(child, selector)
                parent._modules[name] = converted[id(child)]
    if not converted:
        raise ValueError(f"{type(network).__name__} holds no batch normalisation to make domain-specific")
    return selector


def add_domain_norms(network: nn.Module, selector: DomainSelector, name: str, source: str | None = None) -> None:
    """Widen a converted network by one domain, in place; the tensors of the others keep identity and value.

    Args:
        network: what :func:`convert_domain_norms` converted.
        selector: the selector of its layers; learns the name.
        name: the new domain, last in order.
        source: domain whose norms are copied, or None for the mean of all.

    Raises:
        DataError: ``name`` is taken or unfit, or ``source`` is unknown.
    """
    if source is not None:
        selector.index(source)
    selector.add(name)
    for module in network.modules():
        if isinstance(module, DomainBatchNorm) and module.selector is selector:
            module.add_domain(name, source)


def domain_parameters(network: nn.Module, name: str) -> Iterator[nn.Parameter]:
    """The parameters that belong to one domain alone: its norms and its heads. Raises DataError when there are none."""
    parts = [module[name] for module in network.modules() if isinstance(module, DomainModules) and name in module]
    if not parts:
        raise DataError(f"the network has nothing of its own for domain {name!r}")
    return (parameter for part in parts for parameter in part.parameters())
