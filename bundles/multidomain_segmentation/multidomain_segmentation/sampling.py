"""Batches of slices with the same number of every domain, and which crop of which slice each step gets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import CacheDataset

from multidomain_segmentation.stages import Schedule, Stage
from tools.bundle.schedule import StepSampler
from tools.bundle.steps import name_seed
from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan
from tools.data.slices import crop

__all__ = ["UNLABELLED", "BalancedSliceSampler", "SliceDataset", "SliceDraw", "collate_slices"]

logger = logging.getLogger("training")

UNLABELLED = -1  # what stands in every pixel of a missing label
POINTS = 256  # of the structures of a slice, at most, that are kept to place windows around


class SliceDraw(NamedTuple):
    """A crop of a slice: index of the case, index of the slice, and the window, which may reach beyond the slice."""

    case: int
    slice: int
    top: int
    left: int
    height: int
    width: int


class SliceDataset(CacheDataset):
    """Volumes in memory, of which crops are taken: ``dataset[SliceDraw(...)]``; with a number, the whole volume.

    Args:
        data: dictionaries with "image", "domain" and, where the case has one, "label".
        transform: a :class:`tools.data.slices.SliceCase`.
        named: what gives cases without a "domain" one (:class:`multidomain_segmentation.data.GivenDomains`).
        **options: of MONAI's ``CacheDataset``.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Any], Any],
        named: Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(data if named is None else named(data), transform, **options)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains with a labelled case."""
        return tuple(sorted({case["domain"] for case in self.data if case.get("label") is not None}))

    def __getitem__(self, index: SliceDraw | int) -> Any:
        """The crop as "image" (1, H, W) float32, "label" (H, W) int64 or UNLABELLED, "domain"; or what the transform made of a case."""
        if not isinstance(index, SliceDraw):
            return super().__getitem__(index)
        case, size = super().__getitem__(index.case), (index.height, index.width)
        window = (index.top, index.left, size)
        return {
            "image": crop(case["image"][index.slice], *window)[None].float(),
            "label": crop(case["label"][index.slice], *window).long() if "label" in case else torch.full(size, UNLABELLED),
            "domain": case["domain"],
        }


class BalancedSliceSampler(StepSampler):
    """Yields lists of :class:`SliceDraw`, domain after domain; every draw depends on seed and step alone.

    Within a domain every labelled case is as likely as any other, however many slices it has. Of the slices, ``foreground_share`` are
    drawn among those of the case that show a structure, and their window is placed around a pixel of it; the others are drawn
    from all its slices, with the window anywhere. In a stage that learns from answers, every domain gets as many slices of its unlabelled
    cases after its labelled ones, anywhere; a domain whose cases are all labelled gets labelled ones instead.

    Structures that no label shows are warned of: the network learns that they are nowhere.

    Args:
        dataset: the cases; read through once, for where the structures lie.
        plan: the plan of all domains, which the dataset's "domain" counts by. Windows have its patch size; a smaller slice is padded on
            both sides.
        slices_per_domain: labelled slices of each domain a batch on this process.
        epoch_length: batches one pass yields.
        seed: seed of all draws.
        domains: names of the domains to draw from; by default all of the plan.
        foreground_share: share of the slices that are drawn among those with a structure.
        rank, world_size: with several processes every one draws the same slices and takes its part of them.
        schedule: says of which of the domains each step gets slices; by default of all.
        domains_per_step: of how many of these at a time, at most: in turn, in an order that changes from round to round. By default
            of all at once. Fewer make more steps of the same slices.

    Raises:
        DataError: a domain is unknown to the plan or has no labelled case, a stage of the schedule is left without a domain, or learns
            from unlabelled cases and there are none, a target is one of several domains and no stage learns from it alone, or
            ``domains_per_step`` is no positive whole number.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        plan: DomainPlan,
        slices_per_domain: int = 8,
        epoch_length: int = 100,
        seed: int = 0,
        domains: Collection[str] | None = None,
        foreground_share: float = 0.7,
        rank: int = 0,
        world_size: int = 1,
        schedule: Schedule | None = None,
        domains_per_step: int | None = None,
    ) -> None:
        super().__init__(epoch_length)
        if domains_per_step is not None and (not isinstance(domains_per_step, int) or domains_per_step < 1):
            raise DataError(f"domains_per_step must be a positive whole number, got {domains_per_step!r}")
        self.domains_per_step = domains_per_step
        self.count, self.seed = slices_per_domain, seed
        self.foreground_share, self.patch_size = foreground_share, tuple(plan.patch_size)
        self.rank, self.world_size = rank, world_size
        self.schedule, self.names = schedule or Schedule([Stage("all")]), plan.names
        self.active = sorted({plan.index(name) for name in plan.names if domains is None} | {plan.index(name) for name in domains or ()})
        self.cases: dict[int, list[int]] = {index: [] for index in self.active}
        self.unlabelled: dict[int, list[int]] = {index: [] for index in self.active}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.points: dict[int, dict[int, np.ndarray]] = {}
        shown: dict[int, set[int]] = {index: set() for index in self.active}
        for index in range(len(dataset)):
            case = dataset[index]
            if case["domain"] in self.cases:
                if "label" in case:
                    shown[case["domain"]] |= set(np.flatnonzero(np.bincount(np.ravel(case["label"]))).tolist())
                (self.cases if "label" in case else self.unlabelled)[case["domain"]].append(index)
                self.shapes[index] = tuple(case["image"].shape)
                self.points[index] = _points(np.asarray(case["label"])) if "label" in case else {}
        for index in self.active:
            if not self.cases[index]:
                raise DataError(f"the domain {plan.names[index]!r} has no labelled training case")
        if rank == 0:
            _warn_of_unseen(plan, shown)
        names = [plan.names[index] for index in self.active]
        self.schedule.check_target(names)
        for stage in self.schedule.stages:
            learning = self.schedule.domains(stage, names)
            if stage.learn_from == "answers" and not any(self.unlabelled[plan.index(name)] for name in learning):
                raise DataError(
                    f"the stage {stage.name!r} learns from unlabelled images, but every training case of {list(learning)} has a label"
                )

    def batch(self, step: int) -> list[SliceDraw]:
        """The draws of a step: those of its first domain, labelled and then unlabelled ones, then of its second, and so on."""
        result, stage = [], self.schedule(step).stage
        answers, count = stage.learn_from == "answers", self.count * stage.slices
        for domain in self._active(step):
            # A stream for each name: which other domains are trained beside it changes nothing for a domain.
            random = np.random.default_rng((self.seed, step, name_seed(self.names[domain])))
            for cases in (self.cases[domain], self.unlabelled[domain] or self.cases[domain]) if answers else (self.cases[domain],):
                draws = [self._draw(cases, random) for _ in range(count * self.world_size)]
                result += draws[self.rank * count : (self.rank + 1) * count]
        return result

    def _active(self, step: int) -> list[int]:
        names = self.schedule.domains(self.schedule(step).stage, [self.names[index] for index in self.active])
        active = [index for index in self.active if self.names[index] in names]
        if self.domains_per_step is None or self.domains_per_step >= len(active):
            return active
        begin = step * self.domains_per_step
        # A set: where one round ends and the next begins, a domain may have its turn twice.
        return sorted({self._turn(active, number) for number in range(begin, begin + self.domains_per_step)})

    def _turn(self, active: list[int], number: int) -> int:
        """The domain whose turn is the ``number``-th: each has one in every round."""
        turn, place = divmod(number, len(active))
        return int(np.random.default_rng((self.seed, turn)).permutation(active)[place])

    def _draw(self, cases: Sequence[int], random: np.random.Generator) -> SliceDraw:
        case = int(random.choice(cases))
        slices, *shape = self.shapes[case]
        points = self.points[case]
        if points and random.random() < self.foreground_share:
            index = int(random.choice(list(points)))
            point = divmod(int(random.choice(points[index])), shape[1])
        else:
            index = int(random.integers(slices))
            point = None
        corner = [
            _begin(random, length, size, None if point is None else point[axis])
            for axis, (length, size) in enumerate(zip(shape, self.patch_size, strict=True))
        ]
        return SliceDraw(case, index, *corner, *self.patch_size)


def collate_slices(slices: Sequence[Mapping[Hashable, Any]]) -> dict[str, torch.Tensor]:
    """Batch of crops: "image" (B, 1, H, W) float32, "label" (B, H, W) int64, channel numbers or UNLABELLED, "domain" (B,) int64."""
    return {
        "image": torch.stack([slice_["image"] for slice_ in slices]),
        "label": torch.stack([slice_["label"] for slice_ in slices]),
        "domain": torch.tensor([slice_["domain"] for slice_ in slices]),
    }


def _warn_of_unseen(plan: DomainPlan, shown: Mapping[int, Collection[int]]) -> None:
    """One warning of all structures that no label shows; ``shown`` is number of the domain to channels that occur."""
    labels = {plan.names[index]: (channels, list(plan.domains[plan.names[index]].labels.values())) for index, channels in shown.items()}
    unseen = [f"{name!r} of the domain {of!r}" for of, (seen, all_) in labels.items() for k, name in enumerate(all_) if k and k not in seen]
    if unseen:
        logger.warning(f"no training label shows {', '.join(unseen)}: the network learns that there is no such structure")


def _points(label: np.ndarray) -> dict[int, np.ndarray]:
    """Slice number to numbers of pixels of its foreground, evenly chosen where there are more than POINTS: int32."""
    result = {}
    for index in np.flatnonzero(label.any(axis=(1, 2))):
        pixels = np.flatnonzero(label[index]).astype(np.int32)
        result[int(index)] = pixels[np.linspace(0, len(pixels) - 1, min(len(pixels), POINTS)).round().astype(int)]
    return result


def _begin(random: np.random.Generator, length: int, size: int, point: int | None) -> int:
    """First row (or column) of a window of ``size`` in ``length``, one that holds ``point`` where there is one."""
    if length <= size:
        return (length - size) // 2
    low, high = (0, length - size) if point is None else (max(0, point - size + 1), min(point, length - size))
    return int(random.integers(low, high + 1))
