"""Whose images belong together, and the order by a seed in which cases and patients are drawn."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

from tools.data.checks import DataError
from tools.data.decathlon import Dataset

__all__ = ["FRAMES", "case_groups", "seeded_order", "whole_number"]

FRAMES = r"^.+?(?=_frame|$)"  # the part of a name before "_frame": the patient of a moving picture


def case_groups(dataset: Dataset, pattern: str | None) -> dict[str, str]:
    """Case name to the name of its group: its patient, else the first match of the pattern, or without one the case itself.

    Raises:
        DataError: the pattern is no regular expression, or does not match the name of a case.
    """
    # a mark that no name of a case begins with: a patient's number may be the name of another's case
    patients = {case.name: f"patient {case.patient}" for case in dataset.cases if case.patient is not None}
    if not pattern:
        return {case.name: patients.get(case.name, case.name) for case in dataset.cases}
    try:
        matches = {case.name: re.search(pattern, case.name) for case in dataset.cases if case.name not in patients}
    except re.error as error:
        raise DataError(f"group_pattern {pattern!r} is not a regular expression ({error})") from error
    for name, match in matches.items():
        if match is None:
            raise DataError(f"group_pattern {pattern!r} does not match the case name {name}")
    return {case.name: patients.get(case.name) or matches[case.name].group() for case in dataset.cases}


def seeded_order(names: Iterable[str], *salt: Any) -> list[str]:
    """Names by the SHA-256 of salt (a seed) and name."""
    return sorted(names, key=lambda name: hashlib.sha256(":".join([*map(str, salt), name]).encode()).digest())


def whole_number(name: str, value: Any, least: int | None = None) -> int:
    """A number as the command line hands it over. Raises DataError, which names it, when it is none or less than ``least``."""
    try:
        if isinstance(value, bool) or int(value) != float(value):
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(f"{name} must be an integer, not {value!r}") from None
    if least is not None and int(value) < least:
        raise DataError(f"{name} must be at least {least}, not {value!r}")
    return int(value)
