"""The schedule of a training: what learns at which step, and from which domains.

Shares, not step counts, divide a run into its stages, so that whoever sets ``max_epochs`` (MONAI Label, a federated client) still
runs every stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from tools.bundle.schedule import parsed_stages, stage_bounds, warmup_cosine
from tools.data.checks import DataError

__all__ = ["Schedule", "Stage", "Step"]

NETWORKS = ("network", "prior")
DOMAINS = ("all", "others", "target")
SOURCES = ("labels", "answers")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: for messages.
        share: part of the run's steps, relative to the other stages' shares.
        network: what learns: "network", the segmentation network, or "prior", the auto-encoder of masks.
        domains: what it learns from: "all" domains of the run, the "target" alone, or the "others" without it.
        learning_rate: factor on the optimiser's learning rate. Every stage has a warm-up and a descent of its own.
        learn_from: "labels"; or "answers": each step has as many slices of unlabelled cases besides, and a running average of the network
            answers for their labels; a domain without such cases gets labelled ones.
        slices: slices a step, of either kind, as a multiple of the run's ``slices_per_domain``.

    Raises:
        DataError: an argument is out of its range; the message names the stage.
    """

    name: str
    share: float = 1.0
    network: str = "network"
    domains: str = "all"
    learning_rate: float = 1.0
    learn_from: str = "labels"
    slices: int = 1

    def __post_init__(self) -> None:
        if self.share <= 0 or self.learning_rate < 0:
            raise DataError(f"stage {self.name!r} needs a positive share and no negative learning rate")
        if self.network not in NETWORKS:
            raise DataError(f"stage {self.name!r}: network must be one of {NETWORKS}, not {self.network!r}")
        if self.domains not in DOMAINS:
            raise DataError(f"stage {self.name!r}: domains must be one of {DOMAINS}, not {self.domains!r}")
        if self.learn_from not in SOURCES:
            raise DataError(f"stage {self.name!r}: learn_from must be one of {SOURCES}, not {self.learn_from!r}")
        if not isinstance(self.slices, int) or self.slices < 1:
            raise DataError(f"stage {self.name!r}: slices must be a positive whole number, not {self.slices!r}")
        if (self.network, self.learn_from) == ("prior", "answers"):
            raise DataError(f"stage {self.name!r}: the prior learns from labels alone")


class Step(NamedTuple):
    """One step: its stage, and where the stage stands in [0, 1)."""

    stage: Stage
    progress: float


class Schedule:
    """Maps a step's number to what happens at it. A pure function of its arguments, so that a resumed run needs no state.

    Args:
        stages: :class:`Stage` objects or dictionaries of their arguments.
        total_steps: steps of the whole run.
        target: name of the domain that stages may single out.
        prior: whether there is a prior to train; without it the stages that would are left out.
        warmup: share of a stage's steps over which its learning rate rises.
        final: learning rate at the end of a stage, relative to the highest.

    Raises:
        DataError: a stage singles out a target, and none is given; or unlabelled cases are learnt from, and a target is given that no stage
            singles out: the overlay replaced the stages that did.
        DataError: no stage is left, or one is none (:func:`tools.bundle.schedule.parsed_stages`).
    """

    def __init__(
        self,
        stages: Sequence[Stage | Mapping[str, Any]],
        total_steps: int = 1,
        target: str | None = None,
        prior: bool = True,
        warmup: float = 0.03,
        final: float = 0.01,
    ) -> None:
        self.stages = [stage for stage in parsed_stages(stages, Stage) if prior or stage.network != "prior"]
        if not self.stages:
            raise DataError("a schedule needs at least one stage")
        for stage in self.stages:
            if stage.domains != "all" and not target:
                raise DataError(f"the stage {stage.name!r} needs a target: give --target NAME, one of the domains")
        if target and self.needs_unlabelled and all(stage.domains == "all" for stage in self.stages):
            raise DataError("a target is given, but no stage learns from it alone: over transfer lay unlabelled_transfer")
        self.total_steps, self.target, self.warmup, self.final = int(total_steps), target, warmup, final

    @property
    def needs_unlabelled(self) -> bool:
        """Whether a stage learns from unlabelled cases."""
        return any(stage.learn_from == "answers" for stage in self.stages)

    @cached_property
    def _bounds(self) -> list[int]:
        """First step of each stage, and the end."""
        return stage_bounds([stage.share for stage in self.stages], self.total_steps)

    def __call__(self, step: int) -> Step:
        """The step with this number, from 0; numbers past the end repeat the last one."""
        step = min(step, self.total_steps - 1)
        for stage, begin, end in zip(self.stages, self._bounds[:-1], self._bounds[1:], strict=True):
            if begin <= step < end:
                return Step(stage, (step - begin) / (end - begin))
        return Step(self.stages[-1], 0.0)

    def count(self, network: str) -> int:
        """Optimisation steps that "network" or "prior" gets in the whole run."""
        steps = zip(self.stages, self._bounds[:-1], self._bounds[1:], strict=True)
        return sum(end - begin for stage, begin, end in steps if stage.network == network)

    def counts(self) -> dict[str, int]:
        """Optimisation steps of the network and of the prior in the whole run, by name."""
        return {network: self.count(network) for network in NETWORKS}

    def begin(self, network: str) -> int:
        """First step at which "network" or "prior" learns; the length of the run where it never does."""
        return self._begins(network)[0]

    def last_begin(self, network: str) -> int:
        """First step of the last stage in which "network" or "prior" learns; the length of the run where it never does."""
        return self._begins(network)[-1]

    def _begins(self, network: str) -> list[int]:
        return [begin for stage, begin in zip(self.stages, self._bounds) if stage.network == network] or [self.total_steps]

    def domains(self, stage: Stage, names: Sequence[str]) -> tuple[str, ...]:
        """Of the run's domains those that a stage learns from, in their order.

        Raises:
            DataError: the target is none of the domains, or the only one and the others are wanted.
        """
        if stage.domains == "all":
            return tuple(names)
        if self.target not in names:
            raise DataError(f"--target {self.target}: no such domain, there are {sorted(names)}")
        chosen = tuple(name for name in names if (name == self.target) == (stage.domains == "target"))
        if not chosen:
            raise DataError(f"the stage {stage.name!r} needs other domains than {self.target!r}, the data set has none")
        return chosen

    def check_target(self, names: Sequence[str]) -> None:
        """Refuse a target that no stage singles out among the run's domains: all would be learnt from alike, and only it be described.

        Raises:
            DataError: so it is.
        """
        if self.target and len(names) > 1 and all(stage.domains == "all" for stage in self.stages):
            raise DataError(f"--target {self.target}, but no stage learns from it alone: lay the overlay transfer over train.json")

    def learning_rate(self, step: Step) -> float:
        """Factor on the base learning rate at a step."""
        return step.stage.learning_rate * warmup_cosine(step.progress, self.warmup, self.final)
