"""What the optimisation steps of all bundles share: their randomness, their backward pass, and the mean over processes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import distributed, nn

from tools.data.checks import DataError

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
    values: Mapping[str, torch.Tensor],
    max_norm: float,
    step: int,
    share: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Backward pass, clipping and step of one network.

    Args:
        network: whose gradients are clipped.
        optimizer: its optimiser.
        scaler: of mixed precision.
        values: scalars by name: "loss", which is minimised, and what else of the step is worth a line.
        max_norm: gradients are clipped to this norm.
        step: its number, from 0, for messages.
        share: called before the gradients are looked at, to average them over processes.

    Returns:
        the values as numbers, of several processes their means.

    Raises:
        DataError: the gradient or a value is not finite. In fp16 the scaler leaves such steps out, as long as its scale is at least 1.
    """
    optimizer.zero_grad()
    scaler.scale(values["loss"]).backward()
    if share is not None:
        share()  # before the scaler looks: a step is left out by all processes or by none
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
    # Looked at after the step: the numbers are fetched from a GPU once, and nothing is saved in between.
    tensors = {"gradient": norm} | dict(values)
    numbers = dict(zip(tensors, mean_over_processes(torch.stack([tensor.detach().float() for tensor in tensors.values()])).tolist()))
    unfit = [name for name, number in numbers.items() if not math.isfinite(number)]
    if unfit and (not scaler.is_enabled() or scaler.get_scale() < 1):
        raise DataError(
            f"step {step + 1}: not finite any more: {', '.join(unfit)}; no weights of this epoch are written. --resume true goes on from "
            "the epoch before: with a lower learning rate, or --precision float32"
        )
    del numbers["gradient"]
    return numbers
