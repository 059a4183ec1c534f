"""The cases of a run over several domains, and their ``splits.json``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json
from tools.data.decathlon import Case, Dataset
from tools.data.files import write_json
from tools.data.plan import nearest_or_raise
from tools.data.splits.division import make_splits, one_division, trains_on_everything
from tools.data.splits.groups import FRAMES, case_groups
from tools.data.splits.selection import follow, select
from tools.data.splits.split import Split, check_record

__all__ = ["read_domain_splits", "select_domains", "write_domain_splits"]


def select_domains(
    domains: Mapping[str, Dataset],
    splits_file: str | os.PathLike | None = None,
    group_by: str | None = None,
    label_limit: int | str | Mapping[str, int | str] | None = None,
    **options: Any,
) -> dict[str, Split]:
    """The cases of one run over several domains: every number counts patients, and in each domain for itself.

    Where a ``patient`` has images in several of them, patients are divided once for all domains, and ``holdout`` counts those of all.

    Args:
        domains: name to data set (:func:`tools.data.domains.read_domains`).
        splits_file: an existing ``splits.json`` to follow instead, see :func:`select`.
        group_by: regular expression whose first match in a case's name is the patient; by default the ``group_by`` of a domain's
            ``dataset.json``, or else the part of the name before ``_frame`` (all of it without).
        label_limit: as of :func:`select` for all domains alike, or name of a domain to its own; a domain without one uses all labels.
        **options: ``folds, fold, split_seed, holdout, label_seed`` of :func:`select`. Labels rotate: over the folds ``label_limit``
            uses different patients.

    Returns:
        name of the domain to its split.

    Raises:
        DataError: see :func:`select`; or the file lacks a domain, or ``label_limit`` names one that there is not.
    """
    if isinstance(label_limit, Mapping):
        nearest_or_raise("domain in label_limit:", label_limit, domains)
        limits = {name: label_limit.get(name) for name in domains}
    else:
        limits = dict.fromkeys(domains, label_limit)
    if splits_file:
        records = read_domain_splits(splits_file)
        missing = [name for name in domains if name not in records]
        if missing:
            raise DataError(f"{splits_file}: no split for the domain {missing[0]!r}, there are {sorted(records)}")
        given = {key: options[key] for key in ("split_seed", "label_seed") if key in options}
        return {name: follow(dataset, records[name], splits_file, label_limit=limits[name], **given) for name, dataset in domains.items()}
    patterns = {name: group_by or dataset.group_by or FRAMES for name, dataset in domains.items()}
    numbers = {key: options[key] for key in ("folds", "fold", "split_seed", "holdout") if key in options}
    divided = _divided_together(domains, patterns, **numbers)
    return {
        name: select(
            dataset, group_pattern=patterns[name], rotate_labels=True, label_limit=limits[name], divided=divided.get(name), **options
        )
        for name, dataset in domains.items()
    }


def _divided_together(
    domains: Mapping[str, Dataset], patterns: Mapping[str, str], folds: int | str = 5, fold: int | str = 0, **options: Any
) -> dict[str, dict[str, Any]]:
    """Folds of each domain where a patient has images in several, else none: those of all domains' cases together."""
    named = Counter(patient for dataset in domains.values() for patient in {case.patient for case in dataset.cases} - {None})
    if max(named.values(), default=0) < 2:
        return {}
    cases: list[Case] = []
    for name, dataset in domains.items():
        groups = case_groups(dataset, patterns[name])
        for case in dataset.cases:
            patient = case.patient if case.patient is not None else f"{name}: {groups[case.name]}"
            cases.append(replace(case, name=f"{name}/{case.name}", patient=patient))
    together = replace(next(iter(domains.values())), cases=tuple(cases), group_by=None)
    plan = make_splits(together, 1 if trains_on_everything(folds, fold) else folds, **options)
    result = {}
    for name, dataset in domains.items():

        def own(members: Iterable[str], prefix: str = f"{name}/") -> list[str]:
            return [member.removeprefix(prefix) for member in members if member.startswith(prefix)]

        divisions = []
        for division in plan["divisions"]:
            train = own(division["train"])
            held_out = [] if division["validation_in_training"] else own(division["validation"])
            labelled = [case.name for case in dataset.cases if case.name in set(train) and case.label is not None]
            divisions.append(one_division(train, held_out, labelled or train, plan["split_seed"]))
        if not all(division["train"] for division in divisions):
            raise DataError(f"{dataset.root / 'dataset.json'}: no training case of the domain {name!r} is left in one of the folds")
        result[name] = {
            **plan,
            "dataset": dataset.name,
            "group_pattern": patterns[name],
            "report": own(plan["report"]),
            "divisions": divisions,
        }
    return result


def read_domain_splits(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Read the ``splits.json`` of several domains: name of the domain to its record.

    Raises:
        DataError: it is missing, no JSON, names no domain, or a record has no lists of names ``train`` and ``validation``.
    """
    path = Path(path)
    content = read_json(path)
    records = content.get("domains") if isinstance(content, dict) else None
    if not isinstance(records, dict) or not records:
        raise DataError(f'{path}: "domains" must map each domain to its lists of cases')
    return {name: check_record(path, record, of=f"domain {name!r}: ") for name, record in records.items()}


def write_domain_splits(path: str | os.PathLike, splits: Mapping[str, Split]) -> None:
    """Write the splits of several domains as one ``splits.json``, ``{"domains": {name: record}}``, atomically."""
    write_json(path, {"domains": {name: split.record for name, split in splits.items()}})
