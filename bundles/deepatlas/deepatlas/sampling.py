"""Pairs of cases, chosen by what each step needs and which cases have labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_tensor

from deepatlas.stages import Schedule
from tools.bundle.options import check_number
from tools.bundle.schedule import StepSampler
from tools.data.checks import DataError

__all__ = ["PairSampler", "collate_pairs"]


class PairSampler(StepSampler):
    """Yields index lists [fixed..., moving...] of pairs; every draw depends on seed and step alone.

    Which pairs a step gets: two labelled cases when it learns from labels, one labelled case and any other when the
    registration carries labels, and otherwise any two; where answers stand in for labels, at least one of the two is labelled in
    ``labelled_pairs`` of the pairs.

    Args:
        data: list of case dictionaries; a case is labelled when it has a "label".
        schedule: what each step needs.
        pairs: pairs a registration batch on this process.
        segmentation_pairs: the same of a segmentation batch; each pair brings two images.
        epoch_length: batches one pass yields.
        seed: seed of all draws.
        labelled_pairs: share of pairs with a labelled case where predicted segmentations stand in for labels.
        rank, world_size: with several processes every one draws the same pairs and takes its part of them.

    Raises:
        DataError: a single case, no label although a stage needs one, or not one pair a batch.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        schedule: Schedule,
        pairs: int = 2,
        epoch_length: int = 100,
        seed: int = 0,
        labelled_pairs: float = 0.5,
        rank: int = 0,
        world_size: int = 1,
        segmentation_pairs: int = 1,
    ) -> None:
        super().__init__(epoch_length)
        check_number("pairs", pairs)
        check_number("segmentation_pairs", segmentation_pairs)
        self.schedule, self.seed = schedule, seed
        self.pairs = {"registration": pairs, "segmentation": segmentation_pairs}
        self.labelled_pairs, self.rank, self.world_size = labelled_pairs, rank, world_size
        self.cases = len(data)
        self.labelled = [i for i, case in enumerate(data) if case.get("label") is not None]
        if self.cases < 2:
            raise DataError(f"pairs need at least two training cases, there are {self.cases}")
        if not self.labelled and any(self._needs_labels(stage) for stage in schedule.stages):
            raise DataError("no training case has a label, but the stages learn from labels (the unsupervised experiment does not)")

    @staticmethod
    def _needs_labels(stage: Any) -> bool:
        return stage.segmentation > 0 or stage.registration_from == "labels"

    def batch(self, step: int) -> list[int]:
        """Indices of the batch at a step: fixed cases first, then as many moving ones."""
        random = np.random.default_rng((self.seed, step))
        count = self.pairs[self.schedule(step).network]
        pairs = [self._pair(step, random) for _ in range(count * self.world_size)]
        pairs = pairs[self.rank * count : (self.rank + 1) * count]
        return [fixed for fixed, _ in pairs] + [moving for _, moving in pairs]

    def _pair(self, step: int, random: np.random.Generator) -> tuple[int, int]:
        stage, network, *_ = self.schedule(step)
        labelled_only = (network, stage.registration_from) == ("registration", "labels") or (
            (network, stage.segmentation_from) == ("segmentation", "labels")
        )
        if labelled_only:
            # A single labelled case is paired with itself, under two augmentations.
            first, second = random.choice(self.labelled, 2, replace=len(self.labelled) < 2)
            return int(first), int(second)
        source = stage.registration_from if network == "registration" else stage.segmentation_from
        with_label = source == "registration" or (source in ("segmentations", "answers") and random.random() < self.labelled_pairs)
        first = int(random.choice(self.labelled)) if with_label and self.labelled else int(random.integers(self.cases))
        second = int(random.integers(self.cases - 1))
        second += second >= first
        return (first, second) if random.random() < 0.5 else (second, first)


def collate_pairs(cases: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Batch of cases, a missing label standing as zeros: image (N, 1, D, H, W), label (N, 1, D, H, W), labelled (N,) bool."""
    # Plain tensors: MONAI's meta-data would ride along through every operation of the step.
    images = torch.stack([convert_to_tensor(case["image"], track_meta=False) for case in cases])
    labels = [case.get("label") for case in cases]
    empty = torch.zeros_like(images[0], dtype=torch.int64)
    return {
        "image": images,
        "label": torch.stack([empty if label is None else convert_to_tensor(label, track_meta=False) for label in labels]),
        "labelled": torch.tensor([label is not None for label in labels]),
    }
