"""The cases of a run over several domains, and their ``splits.json``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json
from tools.data.decathlon import Case, Dataset
from tools.data.domains import domain_name
from tools.data.plan import nearest_or_raise
from tools.data.splits.division import make_splits, one_division, trains_on_everything
from tools.data.splits.groups import FRAMES, case_groups, seeded_order, whole_number
from tools.data.splits.selection import follow, select
from tools.data.splits.split import Split, check_record

__all__ = ["domain_patients", "read_domain_splits", "select_domains"]


def select_domains(
    domains: Mapping[str, Dataset],
    splits_file: str | os.PathLike | None = None,
    group_by: str | None = None,
    label_limit: int | str | Mapping[str, int | str] | None = None,
    **options: Any,
) -> dict[str, Split]:
    """The cases of one run over several domains: every number counts patients, and in each domain for itself.

    Where a ``patient`` has images in several of them, patients are divided once for all domains, so that those of each are spread over the
    folds, and ``holdout`` counts those of all.

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
        DataError: see :func:`select`; or the file lacks a domain, or ``label_limit`` names one that there is not, or patients are shared
            and a domain has none to train or to validate on in this fold.
    """
    if isinstance(label_limit, Mapping):
        label_limit = {domain_name(name): limit for name, limit in label_limit.items()}
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


def domain_patients(name: str, dataset: Dataset, pattern: str | None) -> dict[str, str]:
    """Case name to patient, of the cases of which the data set or a pattern says it (:func:`case_groups`).

    A ``patient`` of the data set has one name in all domains; before a match of the pattern stands the domain: ``"knee: p07"``.

    Raises:
        DataError: see :func:`case_groups`.
    """
    groups = case_groups(dataset, pattern)
    said = [case for case in dataset.cases if pattern or case.patient is not None]
    return {case.name: case.patient if case.patient is not None else f"{name}: {groups[case.name]}" for case in said}


def _divided_together(
    domains: Mapping[str, Dataset], patterns: Mapping[str, str], folds: int | str = 5, fold: int | str = 0, **options: Any
) -> dict[str, dict[str, Any]]:
    """Folds of each domain where a patient has images in several, else none: a patient is in the same fold in all of them."""
    named = Counter(patient for dataset in domains.values() for patient in {case.patient for case in dataset.cases} - {None})
    if max(named.values(), default=0) < 2:
        return {}
    cases: list[Case] = []
    for name, dataset in domains.items():
        patients_of = domain_patients(name, dataset, patterns[name])
        cases += [replace(case, name=f"{name}/{case.name}", patient=patients_of[case.name]) for case in dataset.cases]
    together = replace(next(iter(domains.values())), cases=tuple(cases), group_by=None)
    plan, group = make_splits(together, 1, **options), case_groups(together, None)
    reported, patients, candidates = set(plan["report"]), {}, {}
    for name, dataset in domains.items():
        left = [case for case in dataset.cases if f"{name}/{case.name}" not in reported]
        if not left:
            raise DataError(f"{dataset.root / 'dataset.json'}: no case of the domain {name!r} is left, all are held out for the report")
        patients[name] = {case.name: group[f"{name}/{case.name}"] for case in left}
        # Validation needs labels, see make_splits.
        candidates[name] = [case.name for case in left if case.label is not None] or list(patients[name])
    everything = trains_on_everything(folds, fold)
    wanted = None if everything else whole_number("fold", fold, least=0)
    validating = {name: {patients[name][case] for case in candidates[name]} for name in domains}
    dealt = [set()] if everything else _dealt(validating, whole_number("folds", folds, least=1), plan["split_seed"])
    result = {}
    for name, dataset in domains.items():
        divisions = []
        for k, held_out in enumerate(dealt):
            missing = "validation" if not validating[name] & held_out else "training" if validating[name] <= held_out else None
            if missing and k == wanted:
                raise DataError(
                    f"{dataset.root / 'dataset.json'}: fold {k} has no {missing} patient of the domain {name!r}, "
                    f"which has {len(validating[name])}: take fewer --folds, or --fold all"
                )
            train = sorted(case for case, patient in patients[name].items() if patient not in held_out)
            validation = [case for case in candidates[name] if patients[name][case] in held_out]
            divisions.append(one_division(train, validation, candidates[name], plan["split_seed"]))
        report = [case.name for case in dataset.cases if case.name not in patients[name]]
        own = {"dataset": dataset.name, "group_pattern": patterns[name], "report": sorted(report), "divisions": divisions}
        result[name] = {**plan, "folds": len(dealt), **own}
    return result


def _dealt(patients: Mapping[str, set[str]], folds: int, split_seed: int) -> list[set[str]]:
    """The patients of each fold: those of every domain are spread over the folds, before all those of the rarest.

    Args:
        patients: name of the domain to its patients.
        folds: number of folds; fewer are made of fewer patients.
        split_seed: seed of the order of patients.
    """
    rarest = sorted(patients, key=lambda name: (len(patients[name]), name))
    domains = {patient: [name for name in rarest if patient in patients[name]] for patient in set().union(*patients.values())}
    order = seeded_order(domains, split_seed)
    # Whoever is in several domains comes first: those of one alone fill the gaps.
    order.sort(key=lambda patient: (rarest.index(domains[patient][0]), -len(domains[patient])))
    dealt: list[set[str]] = [set() for _ in range(min(folds, len(order)))]
    for patient in order:
        min(dealt, key=lambda fold: ([len(fold & patients[name]) for name in domains[patient]], len(fold))).add(patient)
    return dealt


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
    return {domain_name(name): check_record(path, record, of=f"domain {name!r}: ") for name, record in records.items()}
