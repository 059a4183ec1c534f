"""The cases of one run, and ``splits.json``."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json
from tools.data.decathlon import Case, Dataset
from tools.data.files import write_json

__all__ = ["Split", "apply_split", "check_record", "read_split", "write_split"]


@dataclass(frozen=True)
class Split:
    """The cases of one run.

    Attributes:
        train: training cases; ``label`` is None where the case has none or where ``label_limit`` hides it.
        validation: cases to validate on.
        report: cases held out from both, for the final numbers.
        record: everything that ``splits.json`` holds: seeds, numbers, and the names in each list.
    """

    train: tuple[Case, ...]
    validation: tuple[Case, ...]
    report: tuple[Case, ...]
    record: dict[str, Any]

    @property
    def labelled(self) -> tuple[Case, ...]:
        """Training cases whose label is used."""
        return tuple(case for case in self.train if case.label is not None)


def apply_split(dataset: Dataset, record: Mapping[str, Any], source: str | os.PathLike | None = None) -> Split:
    """Look the names of a ``splits.json`` up in a data set.

    Args:
        dataset: the data set.
        record: lists of names ``train``, ``validation`` and, if wanted, ``report`` and ``labelled`` (all labels by default).
        source: the file the record came from, for messages.

    Raises:
        DataError: a name is not in the data set, a report case is trained or validated on, or only some validation cases have a label.
    """
    source = source or "splits.json"
    known = {case.name: case for case in dataset.cases}
    lists = {key: list(record.get(key) or []) for key in ("train", "validation", "report", "labelled")}
    for key, names in lists.items():
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f", did you mean {near[0]}?" if near else ""
                raise DataError(f"{source}: {key} case {name} is not in {dataset.root / 'dataset.json'}{hint}")
    for key in ("train", "validation"):
        shared = sorted(set(lists[key]) & set(lists["report"]))
        if shared:
            raise DataError(f"{source}: case {shared[0]} is both a {key} and a report case")
    for name in lists["labelled"]:
        if known[name].label is None or name not in lists["train"]:
            raise DataError(f"{source}: labelled case {name} has no label in the data set or is not a training case")
    unlabelled = [name for name in lists["validation"] if known[name].label is None]
    if unlabelled and len(unlabelled) < len(lists["validation"]):
        raise DataError(f"{source}: validation case {unlabelled[0]} has no label in the data set, unlike others")
    labelled = set(lists["labelled"]) if "labelled" in record else set(known)
    train = tuple(known[name] if name in labelled else replace(known[name], label=None) for name in lists["train"])
    validation, report = (tuple(known[name] for name in lists[key]) for key in ("validation", "report"))
    lists["labelled"] = [case.name for case in train if case.label is not None]
    return Split(train=train, validation=validation, report=report, record={**record, **lists})


def read_split(path: str | os.PathLike) -> dict[str, Any]:
    """Read a ``splits.json``.

    Raises:
        DataError: it is missing, no JSON, or has no lists of names ``train`` and ``validation``.
    """
    return check_record(Path(path), read_json(path))


def check_record(path: Path, record: Any, of: str = "") -> dict[str, Any]:
    """A record as it was read. Raises DataError when a list of names is missing or none; ``of`` says whose record it is."""
    for key in ("train", "validation", "report", "labelled"):
        value = record.get(key) if isinstance(record, dict) else None
        if value is None and key in ("report", "labelled") and isinstance(record, dict):
            continue
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise DataError(f'{path}: {of}"{key}" must be a list of case names')
    if not record["train"]:
        raise DataError(f'{path}: {of}"train" is empty')
    return record


def write_split(path: str | os.PathLike, split: Split) -> None:
    """Write the record of a split as ``splits.json``, atomically."""
    write_json(path, split.record)
