"""The data of a run: which cases have points, and the sizes of the shape model, which go into the plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from progressive_deepssm.data import check_on_grid, check_shape_cases, check_sides
from progressive_deepssm.field import FIELD, check_sizes
from tools.bundle.run_data import RunData, as_dictionaries
from tools.data.checks import DataError
from tools.data.cropping import voxels_on_grid
from tools.data.decathlon import Case
from tools.data.plan import Plan
from tools.shape.particles import read_particles
from tools.shape.sampling import scale_sizes

__all__ = ["ShapeRunData", "mode_numbers", "refinement_numbers", "scale_numbers"]

LEAST_CASES = 3  # a shape model of two shapes is a line
LEAST_MODES = 16


def scale_numbers(points: int, scales: Sequence[int] | str | None) -> list[int]:
    """Sizes of the nested scales: the ones given, by default by halving (64, 128, 256, 512 for 512 points); "single" is all points at once.

    Raises:
        DataError: they are no numbers, do not rise, or there are fewer points.
    """
    if scales is None:
        return scale_sizes(points)
    if scales == "single":
        return [points]
    numbers = _numbers("scales", scales)
    if not numbers or numbers[0] < 4 or any(a >= b for a, b in pairwise(numbers)):
        raise DataError(f"scales must rise and begin with 4 or more, not {numbers}")
    if numbers[-1] > points:
        raise DataError(f"scales {numbers}: the particle files have {points} points only")
    return numbers


def mode_numbers(modes: int | Sequence[int], scales: Sequence[int], cases: int) -> list[int]:
    """Numbers of modes of the scales; never more than ``cases - 1``.

    Args:
        modes: one a scale, or that of the last scale: the others then have their share of it by points, at least 16.
        scales: sizes of the scales.
        cases: training shapes.

    Raises:
        DataError: there is not one for each scale, or one is no positive number.
    """
    if isinstance(modes, (list, tuple)):
        numbers = _numbers("modes", modes)
    else:
        [most] = _numbers("modes", modes)
        numbers = [max(min(most, LEAST_MODES), most * scale // scales[-1]) for scale in scales]
    if len(numbers) != len(scales) or min(numbers) < 1:
        raise DataError(f"modes must be one number, or one for each of the scales {list(scales)}, not {modes}")
    return [min(n, cases - 1) for n in numbers]


def refinement_numbers(refinements: int | Sequence[int], scales: Sequence[int]) -> list[int]:
    """Numbers of refinement steps of the scales: one number for all, or one each, counted from the last scale.

    Where scales are fewer, the first numbers are left out; where they are more, the first number holds for those too.

    Raises:
        DataError: there is no number, or a negative one.
    """
    numbers = _numbers("refinements", refinements)
    if not numbers or min(numbers) < 0:
        raise DataError(f"refinements must be one number, or one for each of the scales {list(scales)}, not {refinements}")
    return [numbers[0]] * (len(scales) - len(numbers)) + numbers[-len(scales) :]


class ShapeRunData(RunData):
    """As :class:`tools.bundle.run_data.RunData`; cases without label or points are not learnt from.

    Args:
        scales, modes: see :func:`scale_numbers` and :func:`mode_numbers`.
        shape: what else the plan keeps of the network in ``extra["shape"]``.
        structure: label value that the points lie on; None for everything but the background.
        **options: of ``RunData``.

    Raises:
        DataError: the structure is no number.
    """

    def __init__(
        self,
        *args: Any,
        scales: Sequence[int] | str | None = None,
        modes: int | Sequence[int] = 64,
        shape: dict[str, Any] | None = None,
        structure: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._scales, self._modes, self._shape = scales, modes, dict(shape or {})
        self._structure, self._structure_given = None if structure in (None, "all") else _number(structure), structure is not None

    def completed(self, plan: Plan) -> Plan:
        """The plan, with the sizes of network and shape model in ``extra["shape"]``."""
        cases = _with_points(self.split.train)
        if len(cases) < LEAST_CASES:
            description = self.dataset.root / "dataset.json"
            raise DataError(f"{description}: {len(cases)} training cases with label and particles, at least {LEAST_CASES} are needed")
        points = len(read_particles(cases[0].particles))
        scales = scale_numbers(points, self._scales)
        voxels = np.array([voxels_on_grid(case, plan) for case in cases])
        shape = {
            **self._shape,
            "points": points,
            "scales": scales,
            "refinements": refinement_numbers(self._shape.get("refinements", 1), scales),
            "modes": mode_numbers(self._modes, scales, len(cases)),
            "structure": self._structure,
            "field": [int(n) for n in np.maximum(1, np.floor(FIELD * np.minimum(voxels.min(0), plan.size)))],
        }
        if (voxels > plan.size).any():
            shape["largest"] = voxels.max(0).tolist()
        return replace(plan, extra={**plan.extra, "shape": shape})

    @property
    def train(self) -> list[dict[str, str]]:
        """Training cases with label and points as MONAI data dictionaries."""
        return as_dictionaries(_with_points(self.split.train))

    @property
    def validation(self) -> list[dict[str, str]]:
        """Validation cases with label and points as MONAI data dictionaries."""
        return as_dictionaries(_with_points(self.split.validation))

    @property
    def points_digest(self) -> str:
        """What tells the training cases' points from others; a run must be resumed with those that it began with."""
        digest = hashlib.sha256()
        for case in _with_points(self.split.train):
            digest.update(case.name.encode() + read_particles(case.particles).tobytes())
        return digest.hexdigest()[:12]

    def check(self, need_labels: int = LEAST_CASES, need_particles: bool = True) -> None:
        """Look at every input file before work starts.

        Raises:
            DataError: see :meth:`tools.bundle.run_data.RunData.check` and the checks in :mod:`progressive_deepssm.data`; in fine-tuning,
                structure, scales or segmentation are not those of the model.
        """
        super().check(need_labels, need_particles)
        if self._use_model_plan:
            self._check_kept()
        cases = [case for case in self.dataset.cases if case.label is not None and case.particles is not None]
        sizes = self.plan.extra["shape"]
        structure = sizes["structure"]
        if structure is not None and structure not in self.plan.labels:
            raise DataError(f"structure {structure} is none of the label values {list(self.plan.labels)}")
        check_shape_cases(cases, sizes["points"], structure)
        check_sizes(cases, self.plan)
        check_on_grid(cases, self.plan)
        check_sides(_with_points([*self.split.train, *self.split.validation]))

    def _check_kept(self) -> None:
        """Refuse what is asked for and is not so in the model, which goes on learning as it is."""
        own, plan = self.plan.extra["shape"], self.model_dir / "plan.json"
        wanted: dict[str, Any] = {}
        if self._structure_given:
            wanted["structure"] = self._structure
        if self._scales is not None:
            wanted["scales"] = scale_numbers(own["points"], self._scales)
        if isinstance(self._modes, (list, tuple)):
            wanted["modes"] = self._modes_of(own)
        for option, value in wanted.items():
            if value != own[option]:
                mine, its = ("all" if given is None else given for given in (value, own[option]))
                raise DataError(f"--{option} {mine}: {plan} has {its}, which a model that goes on learning keeps")
        if self._shape.get("segmentation", own["segmentation"]) != own["segmentation"]:
            learnt = "a segmentation, which would be forgotten: give one above 0" if own["segmentation"] else "no segmentation: give 0"
            raise DataError(f"--segmentation_weight: the model of {plan} has learnt {learnt}")

    @property
    def _asked(self) -> Mapping[str, Any]:
        own = self.plan.extra["shape"]
        refinements = refinement_numbers(self._shape.get("refinements", 1), own["scales"])
        return {"shape": {**self._shape, "refinements": refinements, "modes": self._modes_of(own)}}

    def _modes_of(self, own: Mapping[str, Any]) -> list[int]:
        """The modes asked for, by the scales of a model, and at most as many as it has: it may have had fewer cases."""
        return mode_numbers(self._modes, own["scales"], max(own["modes"]) + 1)


def _with_points(cases: Sequence[Case]) -> list[Case]:
    return [case for case in cases if case.label is not None and case.particles is not None]


def _numbers(option: str, value: Any) -> list[int]:
    try:
        return [int(n) for n in (value if isinstance(value, (list, tuple)) else [value])]
    except (TypeError, ValueError) as error:
        raise DataError(f"--{option} {value}: give whole numbers") from error


def _number(structure: Any) -> int:
    try:
        return int(structure)
    except ValueError as error:
        raise DataError(f"--structure {structure}: give the label value of the structure, a whole number") from error
