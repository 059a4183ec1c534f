"""Batches of cases, passes over all of them in a new order each."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor

from tools.bundle.schedule import StepSampler
from tools.data.checks import DataError

__all__ = ["CaseSampler", "collate_cases"]


class CaseSampler(StepSampler):
    """Yields index lists; which cases a step gets depends on seed and step alone.

    Args:
        cases: what is sampled from.
        batch_size: cases a step on this process.
        epoch_length: batches one pass of the loader yields.
        seed: of the orders.
        rank, world_size: with several processes every one draws the same cases and takes its part of them.
        drawn: share of the batches' places, 0 to 1, that go to cases made from drawn shapes, a new one each time. Their indices begin
            after those of ``cases``.

    Raises:
        DataError: there is no case, or ``drawn`` is no share.
    """

    def __init__(
        self,
        cases: Sized,
        batch_size: int = 4,
        epoch_length: int = 100,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drawn: float = 0.0,
    ) -> None:
        super().__init__(epoch_length)
        self.cases, self.batch_size, self.seed, self.rank, self.world_size = len(cases), batch_size, seed, rank, world_size
        if not self.cases:
            raise DataError("no training case has a label and particles")
        if isinstance(drawn, bool) or not isinstance(drawn, (int, float)) or not 0 <= drawn <= 1:
            raise DataError(f"the share of drawn shapes must be a number from 0 to 1, got {drawn!r}")
        self.drawn = drawn

    def batch(self, step: int) -> list[int]:
        """Indices of the batch at a step."""
        begin = (step * self.world_size + self.rank) * self.batch_size
        return [self._case(number) for number in range(begin, begin + self.batch_size)]

    def _case(self, number: int) -> int:
        if self.drawn and np.random.default_rng((self.seed, number, 1)).random() < self.drawn:
            return self.cases + number
        order, place = divmod(number, self.cases)
        return int(np.random.default_rng((self.seed, order)).permutation(self.cases)[place])


def collate_cases(cases: Sequence[Mapping[Hashable, Any]]) -> dict[str, torch.Tensor]:
    """Batch of cases: "image" (B, 1, D, H, W), "label" (B, 1, D, H, W), "points" (B, M, 3), as plain tensors."""
    # MONAI's meta-data would ride along through every operation of the step.
    return {key: torch.stack([convert_to_tensor(case[key], track_meta=False) for case in cases]) for key in ("image", "label", "points")}
