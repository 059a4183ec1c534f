"""Which sample of a batch is of which domain, said once a forward pass to all domain-specific layers of a network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

from tools.data.checks import DataError

__all__ = ["DomainGroup", "DomainSelector"]


class DomainGroup(NamedTuple):
    """The samples of one domain.

    name: of the domain.
    rows: index of its samples in the batch, ascending: a LongTensor, or a slice where they lie together (``labels[rows]`` works for both).
    """

    name: str
    rows: slice | torch.Tensor


class _Batch(NamedTuple):
    groups: list[DomainGroup]
    size: int | None  # None: one domain, whatever the size
    inverse: torch.Tensor | None  # brings the groups' samples, one group after the other, back into the batch's order; None: they are


class DomainSelector:
    """The domains of a network and, inside of :meth:`use`, the domain of each sample.

    A plain object that all layers of a network hold, no module: nothing of a batch enters a state dictionary, a copy or a
    pickle, and a deep copy of a network gets a selector of its own. The batch is kept per thread.

    Args:
        names: of the domains, in the order of their indices.

    Raises:
        DataError: no name, or one that is empty, doubled, holds a full stop or is a method of ``torch.nn.ModuleDict``.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names: tuple[str, ...] = ()
        self._local = threading.local()
        for name in names:
            self.add(name)
        if not self.names:
            raise DataError("at least one domain is needed")

    def __getstate__(self) -> dict:
        return {"names": self.names}

    def __setstate__(self, state: dict) -> None:
        self.__init__(state["names"])

    def add(self, name: str) -> None:
        """Append a domain. Raises DataError when the name is taken or cannot be a key of a state dictionary."""
        if name in self.names:
            raise DataError(f"two domains are named {name!r}")
        if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise DataError(f"a domain cannot be named {name!r}")
        self.names = (*self.names, name)

    def index(self, name: str) -> int:
        """Index of a domain. Raises DataError, naming the known ones, when there is no such domain."""
        if name not in self.names:
            raise DataError(f"unknown domain {name!r}, known are {sorted(self.names)}")
        return self.names.index(name)

    @contextmanager
    def use(self, domains: str | Sequence[str] | torch.Tensor, device: torch.device | str = "cpu") -> Iterator[DomainSelector]:
        """For the time of a ``with`` block, tell all layers the domain of each sample.

        Args:
            domains: a name for the whole batch, or a name or index (LongTensor (B,)) for each sample.
            device: where the batch lies.

        Raises:
            DataError: a domain is unknown.
        """
        before = getattr(self._local, "batch", None)
        self._local.batch = self._batch(domains, device)
        try:
            yield self
        finally:
            self._local.batch = before

    @property
    def groups(self) -> list[DomainGroup]:
        """The current batch's samples by domain, in the domains' order, absent ones not. Raises RuntimeError outside of :meth:`use`."""
        return self._current().groups

    def map(self, function: Callable[[str, torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        """Apply ``function(name, samples)`` to every domain's samples of a batch (B, ...) and put the answers together in its order."""
        inverse = self._current().inverse
        parts = [function(group.name, samples) for group, samples in self.parts(batch)]
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        return joined if inverse is None else joined[inverse]

    def parts(self, batch: torch.Tensor) -> list[tuple[DomainGroup, torch.Tensor]]:
        """Every domain's samples of a batch (B, ...), as :attr:`groups` names them. Raises ValueError as :meth:`check_size` does."""
        current = self._current()
        self.check_size(batch)
        if current.inverse is None and len(current.groups) > 1:
            # Backward, one concatenation; of slices taken one by one, each gives a gradient as large as the batch, zero but for a part.
            return list(zip(current.groups, batch.split([rows.stop - rows.start for _, rows in current.groups])))
        return [(group, batch[group.rows]) for group in current.groups]

    def check_size(self, batch: torch.Tensor) -> None:
        """Raises ValueError when a batch (B, ...) has not as many samples as domains were given."""
        size = self._current().size
        if size is not None and size != len(batch):
            raise ValueError(f"a batch of {len(batch)} samples, but the domains of {size} were given")

    def _current(self) -> _Batch:
        batch = getattr(self._local, "batch", None)
        if batch is None:
            raise RuntimeError("domain-specific layers need to know the domains: run the network inside of `with selector.use(domains):`")
        return batch

    def _batch(self, domains: str | Sequence[str] | torch.Tensor, device: torch.device | str) -> _Batch:
        if isinstance(domains, str):
            return _Batch([DomainGroup(self.names[self.index(domains)], slice(None))], None, None)
        if isinstance(domains, torch.Tensor):
            if domains.ndim != 1 or domains.is_floating_point():
                raise ValueError(f"domains must be a LongTensor (B,), got {domains.dtype} {tuple(domains.shape)}")
            indices = domains.tolist()
        else:
            indices = [self.index(name) for name in domains]
        if not indices:
            raise ValueError("the batch is empty")
        rows: dict[int, list[int]] = {k: [] for k in sorted(set(indices))}
        for i, k in enumerate(indices):
            if not 0 <= k < len(self.names):
                raise DataError(f"unknown domain {k}, known are 0 to {len(self.names) - 1}: {list(self.names)}")
            rows[k].append(i)
        order = [i for group in rows.values() for i in group]
        inverse = None if order == list(range(len(order))) else torch.tensor(order, device=device).argsort()
        return _Batch([DomainGroup(self.names[k], _compact(group, device)) for k, group in rows.items()], len(indices), inverse)


def _compact(rows: list[int], device: torch.device | str) -> slice | torch.Tensor:
    """A slice, which costs no copy, where the rows lie together."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, device=device)
