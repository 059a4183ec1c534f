"""What schedules of all bundles are made of: the bounds of stages, the course of a learning rate, batches by step number."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from torch.utils.data import Sampler

from tools.data.checks import DataError, first_line
from tools.data.plan import nearest_or_raise

__all__ = ["StepSampler", "parsed_stages", "stage_bounds", "warmup_cosine"]

StageT = TypeVar("StageT")


class StepSampler(Sampler):
    """Batches that are a function of the step's number alone: a pass goes on where the last one ended, a resumed run where it was killed.

    Args:
        epoch_length: batches one pass yields.

    Attributes:
        next_step: step that the next pass begins with.
    """

    def __init__(self, epoch_length: int) -> None:
        self.epoch_length, self.next_step = epoch_length, 0

    def __len__(self) -> int:
        return self.epoch_length

    def __iter__(self) -> Iterator[list[Any]]:
        begin = self.next_step
        self.next_step += self.epoch_length
        for step in range(begin, begin + self.epoch_length):
            yield self.batch(step)

    def batch(self, step: int) -> list[Any]:
        """What the data set is asked for at a step."""
        raise NotImplementedError


def parsed_stages(stages: Sequence[StageT | Mapping[str, Any]], kind: type[StageT]) -> list[StageT]:
    """Stages as a config lists them, dictionaries of the arguments of ``kind``, a dataclass; those that are made already stay.

    Raises:
        DataError: one is no dictionary with a name, has an unknown key (the message names the nearest) or a value of the wrong type.
    """
    if not isinstance(stages, Sequence) or isinstance(stages, str):
        raise DataError(f"stages must be a list of dictionaries, not {stages!r}")
    found = []
    for stage in stages:
        if not isinstance(stage, kind):
            if not isinstance(stage, Mapping) or not isinstance(stage.get("name"), str):
                raise DataError(f"stages: {stage!r} is no dictionary with a name")
            nearest_or_raise(f"key of the stage {stage['name']!r}:", stage, [field.name for field in fields(kind)])
            try:
                stage = kind(**stage)
            except TypeError as error:
                raise DataError(f"stage {stage['name']!r}: {first_line(error)}") from error
        found.append(stage)
    return found


def stage_bounds(shares: Sequence[float], total_steps: int) -> list[int]:
    """First step of each stage of a run that ``shares`` divide, and the end: one number more than there are stages."""
    bounds = [0.0]
    for share in shares:
        bounds.append(bounds[-1] + share / sum(shares) * total_steps)
    return [round(bound) for bound in bounds]


def warmup_cosine(progress: float, warmup: float = 0.03, final: float = 0.01) -> float:
    """Factor on the base learning rate: linear warm-up, then a half cosine (Loshchilov & Hutter, ICLR 2017).

    Args:
        progress: share of the steps that are done, in [0, 1).
        warmup: share of the steps over which the rate rises.
        final: rate at the end, relative to the highest.
    """
    if progress < warmup:
        return max(progress / warmup, 0.02)
    cosine = 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
    return final + (1 - final) * cosine
