"""What the optimisation steps of all bundles share: their randomness, their backward pass, and the mean over processes."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import distributed, nn

__all__ = ["mean_over_processes", "name_seed", "optimise", "processes", "seeded_generator"]


def seeded_generator(*numbers: int) -> torch.Generator:
    """A generator on the CPU that the numbers (seed, step, place in the batch, ...) determine, unlike for any two rows of them."""
    entropy = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    # numpy 1.26 cannot shift its own integer, and torch takes 63 bits
    return torch.Generator().manual_seed(int(entropy) >> 1)


def name_seed(name: str) -> int:
    """A number for a name, to seed with."""
    return zlib.crc32(name.encode())


def processes() -> int:
    """Number of processes of a distributed training, 1 outside of one."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Mean over the processes of a distributed training; otherwise the values themselves, which are left as they are."""
    if processes() == 1:
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values / processes()


def optimise(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    loss: torch.Tensor,
    max_norm: float,
    before_clipping: Callable[[], None] | None = None,
) -> None:
    """Backward pass, clipping and step of one network.

    Args:
        network: whose gradients are clipped.
        optimizer: its optimiser.
        scaler: of mixed precision.
        loss: a scalar.
        max_norm: gradients are clipped to this norm.
        before_clipping: called on the unscaled gradients.
    """
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    if before_clipping is not None:
        before_clipping()
    nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
