"""The schedule of a training: which scales learn at which step, and what else.

Shares, not step counts, divide a run into its stages, so that whoever sets ``max_epochs`` (MONAI Label, a federated client) still
runs every stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from tools.bundle.overrides import to_bool
from tools.bundle.schedule import parsed_stages, stage_bounds, warmup_cosine
from tools.data.checks import DataError

__all__ = ["Schedule", "Stage", "Step"]

TARGETS = ("points", "autoencoder", "codes", "codes_and_autoencoder")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: for messages.
        share: part of the run's steps, relative to the other stages' shares.
        scales: the first so many scales learn; None for all.
        decoder: whether the linear decoders learn too; otherwise they stay the shape model.
        learn: what is compared: "points"; or in TL-DeepSSM the "autoencoder" of points alone, the "codes" of images with it frozen, or
            "codes_and_autoencoder".

    Raises:
        DataError: an argument is out of its range; the message names the stage.
    """

    name: str
    share: float = 1.0
    scales: int | None = None
    decoder: bool | str = False
    learn: str = "points"

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", to_bool(self.decoder))
        if self.share <= 0 or (self.scales is not None and self.scales < 1):
            raise DataError(f"stage {self.name!r} needs a positive share and at least one scale")
        if self.learn not in TARGETS:
            raise DataError(f"stage {self.name!r}: learn must be one of {TARGETS}, not {self.learn!r}")


class Step(NamedTuple):
    """One step: its stage, and where the run and the stage stand in [0, 1)."""

    stage: Stage
    progress: float
    stage_progress: float


class Schedule:
    """Maps a step's number to what happens at it. A pure function of its arguments, so that a resumed run needs no state.

    Args:
        stages: :class:`Stage` objects or dictionaries of their arguments.
        total_steps: steps of the whole run.
        warmup: share of the run over which the learning rate rises.
        final: learning rate at the end, relative to the highest.

    Raises:
        DataError: there is no stage.
    """

    def __init__(
        self, stages: Sequence[Stage | Mapping[str, Any]], total_steps: int = 1, warmup: float = 0.03, final: float = 0.01
    ) -> None:
        self.stages = parsed_stages(stages, Stage)
        if not self.stages:
            raise DataError("a schedule needs at least one stage")
        self.total_steps, self.warmup, self.final = int(total_steps), warmup, final

    @cached_property
    def _bounds(self) -> list[int]:
        return stage_bounds([stage.share for stage in self.stages], self.total_steps)

    def __call__(self, step: int) -> Step:
        """The step with this number, from 0; numbers past the end repeat the last one."""
        step = min(step, self.total_steps - 1)
        index = next(i for i, end in enumerate(self._bounds[1:]) if step < end)
        begin, end = self._bounds[index : index + 2]
        return Step(self.stages[index], step / self.total_steps, (step - begin) / (end - begin))

    def counts(self) -> dict[str, int]:
        """Optimisation steps in the whole run, by the name of the only network."""
        return {"network": self.total_steps}

    def last_begin(self) -> int:
        """First step of the last stage."""
        return self._bounds[-2]

    def learning_rate(self, step: Step, decoder: bool = False) -> float:
        """Factor on the base learning rate: linear warm-up, then a half cosine over the run.

        The linear decoders begin late: theirs goes over the stage that they learn in.
        """
        return warmup_cosine(step.stage_progress if decoder else step.progress, self.warmup, self.final)
