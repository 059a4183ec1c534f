"""Cases as the networks see them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.transforms import Compose, Lambdad

from tools.bundle.overrides import to_bool
from tools.bundle.run_data import RunData
from tools.bundle.transforms import KeepKeysd
from tools.data.checks import check_images
from tools.data.cropping import warn_of_cropping
from tools.data.decathlon import Case, case_name, read_images
from tools.data.divisions import find_divisions
from tools.data.geometry import preprocessing
from tools.data.plan import Plan

__all__ = ["DeepAtlasRunData", "case_transforms", "images_to_segment"]

logger = logging.getLogger("training")


class DeepAtlasRunData(RunData):
    """As :class:`tools.bundle.run_data.RunData`; the plan keeps in ``extra["divisions"]`` which structures are divided by a plane.

    Args:
        divisions: whether to look for them in the labels that are learnt from (:mod:`tools.data.divisions`).
        **options: of ``RunData``.
    """

    def __init__(self, *args: Any, divisions: bool | str = True, **options: Any) -> None:
        super().__init__(*args, **options)
        self._divisions = to_bool(divisions)

    @cached_property
    def plan(self) -> Plan:
        """The plan: the model's, or made from the data set; without divisions where none are to be looked for."""
        plan = super().plan
        return plan if self._divisions else replace(plan, extra={name: value for name, value in plan.extra.items() if name != "divisions"})

    def completed(self, plan: Plan) -> Plan:
        """The plan with the divisions, where there are any."""
        found = find_divisions(self.split.train, plan.orientation) if self._divisions else []
        for division in found:
            lower, upper = (plan.labels[division[side]] for side in ("lower", "upper"))
            plane = f"a plane across axis {division['axis']} ({plan.orientation})"
            logger.info(f"{lower} and {upper} are divided by {plane} in the labels, to which answers keep; --divisions false does not look")
        return replace(plan, extra={**plan.extra, "divisions": found}) if found else plan

    def check(self, need_labels: int = 1, need_particles: bool = False, given: Sequence[Mapping[str, Any]] = ()) -> None:
        """As there; images to learn from or to validate on that the grid crops are warned of."""
        super().check(need_labels, need_particles, given)
        cases = [*self.split.train, *self.split.validation] or [Case(case_name(case["image"]), Path(case["image"])) for case in given]
        warn_of_cropping(cases, self.plan)


def case_transforms(plan: Plan) -> Compose:
    """From paths to tensors: "image" (1, D, H, W) in [0, 1] and, where there is one, "label" (1, D, H, W) of channel numbers."""
    return Compose(
        [
            KeepKeysd(["name", "image", "label"], allow_missing_keys=True),
            *preprocessing(plan).transforms,
            Lambdad("label", plan.to_channels, allow_missing_keys=True),
        ]
    )


def images_to_segment(dataset_dir: str | os.PathLike, plan: Plan) -> list[dict[str, str]]:
    """The images of a data set's test list, of all its lists, or of a folder, checked, as MONAI data dictionaries.

    Those that the plan's grid crops are warned of.

    Raises:
        DataError: there is no image, or one has a fault.
    """
    cases = read_images(dataset_dir)
    check_images(cases)
    warn_of_cropping(cases, plan)
    return [{"image": str(case.image)} for case in cases]
