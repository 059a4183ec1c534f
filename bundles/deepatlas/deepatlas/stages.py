"""The schedule of a training: which network learns at which step, and from what.

A run is a list of stages; a stage alternates registration and segmentation steps. Shares, not step counts, divide the
run, so that whoever sets ``max_epochs`` (MONAI Label, a federated client) still runs every stage.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tools.bundle.overrides import to_bool
from tools.bundle.schedule import parsed_stages, stage_bounds, warmup_cosine
from tools.data.checks import DataError

__all__ = ["Schedule", "Stage", "Step", "has_network", "usable_stages"]

logger = logging.getLogger("training")

NETWORKS = ("registration", "segmentation")
WEIGHTS = {"registration": "registration.pt", "segmentation": "model.pt"}
REGISTRATION_SOURCES = ("images", "labels", "segmentations")
SEGMENTATION_SOURCES = ("labels", "registration", "segmentations", "answers")


@dataclass(frozen=True)
class Stage:
    """One stage.

    Args:
        name: for logs.
        share: part of the run's steps, relative to the other stages' shares.
        registration: registration steps in one turn of the alternation.
        segmentation: segmentation steps in one turn, taken first.
        registration_from: "images" (unsupervised), "labels" (pairs of labelled cases), or "segmentations" (all pairs, a
            missing label replaced by the segmentation network's answer).
        segmentation_from: "labels" (supervised only), "registration" (labels carried over by the registration as well), "segmentations"
            (all pairs: the segmentation network's own answers are carried over where a label is missing), or "answers" (its own
            answers to unlabelled images, with nothing carried over).
        warp_labelled: whether a labelled case that is registered to an unlabelled one is learnt in the shape of that one.
        share_features: whether the registration network starts the stage with a copy of the segmentation network's features.
        restart: whether, for the networks that learn in this stage, the course of the learning rate (warm-up and half cosine) begins
            anew with it, to last until the next restart (Loshchilov & Hutter, ICLR 2017).
        learning_rate: factor on their learning rate from a restart on; without one it has no effect.

    Raises:
        DataError: an argument is out of its range; the message names the stage.
    """

    name: str
    share: float = 1.0
    registration: int = 0
    segmentation: int = 0
    registration_from: str = "segmentations"
    segmentation_from: str = "registration"
    warp_labelled: bool = False
    share_features: bool = False
    restart: bool = False
    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        for switch in ("warp_labelled", "share_features", "restart"):
            object.__setattr__(self, switch, to_bool(getattr(self, switch)))
        if not all(isinstance(steps, int) for steps in (self.registration, self.segmentation)):
            raise DataError(f"stage {self.name!r}: registration and segmentation are whole numbers of steps")
        if self.share <= 0 or min(self.registration, self.segmentation) < 0 or self.turn == 0:
            raise DataError(f"stage {self.name!r} needs a positive share and at least one step a turn")
        if self.learning_rate <= 0:
            raise DataError(f"stage {self.name!r}: learning_rate must be positive, not {self.learning_rate}")
        if self.registration_from not in REGISTRATION_SOURCES:
            raise DataError(f"stage {self.name!r}: registration_from must be one of {REGISTRATION_SOURCES}, not {self.registration_from!r}")
        if self.segmentation_from not in SEGMENTATION_SOURCES:
            raise DataError(f"stage {self.name!r}: segmentation_from must be one of {SEGMENTATION_SOURCES}, not {self.segmentation_from!r}")

    @property
    def turn(self) -> int:
        """Steps of one turn of the alternation."""
        return self.registration + self.segmentation


def usable_stages(stages: Sequence[Stage | Mapping[str, Any]], model_dir: str | os.PathLike, finetune: bool | str = False) -> list[Stage]:
    """The stages; of a model that goes on learning and has no ``registration.pt`` (one of segmentation alone), those of the segmentation
    network, with nothing carried over, and a warning. Where none is left, all: the registration network then starts anew.

    Args:
        stages: :class:`Stage` objects or dictionaries of their arguments.
        model_dir: folder of the model that goes on learning.
        finetune: whether one does.
    """
    found = parsed_stages(stages, Stage)
    weights = Path(model_dir) / WEIGHTS["registration"]
    if not to_bool(finetune) or weights.is_file():
        return found
    alone = [
        replace(stage, registration=0, segmentation_from="answers" if stage.segmentation_from == "answers" else "labels")
        for stage in found
        if stage.segmentation
    ]
    if alone and alone != found:
        logger.warning(f"{weights}: there is none, so the segmentation network goes on alone")
    return alone or found


class Step(NamedTuple):
    """One step: its stage, the network that learns, where the course of its learning rate stands in [0, 1), the factor on
    that rate, and whether the stage begins here."""

    stage: Stage
    network: str
    progress: float
    rate: float = 1.0
    begins: bool = False


class Schedule:
    """Maps a step's number to what happens at it. A pure function of its arguments, so that a resumed run needs no state.

    Args:
        stages: :class:`Stage` objects or dictionaries of their arguments.
        total_steps: steps of the whole run; may be set later, before the first step.
        warmup: share of a network's steps, between one restart and the next, over which its learning rate rises.
        final: learning rate at the end, relative to the highest.
    """

    def __init__(
        self, stages: Sequence[Stage | Mapping[str, Any]], total_steps: int = 1, warmup: float = 0.03, final: float = 0.01
    ) -> None:
        if not stages:
            raise DataError("a schedule needs at least one stage")
        self.stages = parsed_stages(stages, Stage)
        self.total_steps, self.warmup, self.final = int(total_steps), warmup, final

    @cached_property
    def _steps(self) -> list[Step]:
        bounds = stage_bounds([stage.share for stage in self.stages], self.total_steps)
        steps: list[tuple[Stage, str, tuple[str, int], int, float, bool]] = []
        course, rate, before = Counter[str](), dict.fromkeys(NETWORKS, 1.0), Counter[tuple[str, int]]()
        for stage, begin, end in zip(self.stages, bounds[:-1], bounds[1:], strict=True):
            for network in NETWORKS:
                if stage.restart and getattr(stage, network):
                    course[network] += 1
                    rate[network] = stage.learning_rate
            for i in range(end - begin):
                network = "segmentation" if i % stage.turn < stage.segmentation else "registration"
                key = network, course[network]
                steps.append((stage, network, key, before[key], rate[network], i == 0))
                before[key] += 1
        return [Step(stage, network, done / before[key], factor, first) for stage, network, key, done, factor, first in steps]

    def __call__(self, step: int) -> Step:
        """The step with this number, from 0; numbers past the end repeat the last one."""
        return self._steps[min(step, len(self._steps) - 1)]

    def count(self, network: str) -> int:
        """Optimisation steps that "registration" or "segmentation" gets in the whole run."""
        return self.counts()[network]

    def counts(self) -> dict[str, int]:
        """Optimisation steps of both networks in the whole run, by name."""
        names = Counter(step.network for step in self._steps)
        return {name: names[name] for name in NETWORKS}

    def last_begin(self, network: str) -> int:
        """First step of the last stage that "registration" or "segmentation" learns in.

        Raises:
            DataError: it learns in none.
        """
        begins = [number for number, step in enumerate(self._steps) if step.begins and getattr(step.stage, network)]
        if not begins:
            raise DataError(f"no stage trains the {network} network")
        return begins[-1]

    def learning_rate(self, step: Step) -> float:
        """Factor on the base learning rate: linear warm-up, then a half cosine, over the network's own steps between restarts."""
        return step.rate * warmup_cosine(step.progress, self.warmup, self.final)


def has_network(network: str, schedule: Schedule, model_dir: str | os.PathLike, finetune: bool | str = False) -> bool:
    """Whether there is a "registration" or "segmentation" network to look at and to write: one that learns, or of a trained model that
    goes on learning."""
    return schedule.count(network) > 0 or (to_bool(finetune) and (Path(model_dir) / WEIGHTS[network]).is_file())
