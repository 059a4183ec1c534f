"""Who trains, who validates, who is reported, and whose labels are used: chosen by written seeds, saved as ``splits.json``.

Every choice sorts the names by the SHA-256 of seed and name. That order depends on no library and no platform, and adding a case
moves none of the others; taking the first N of it makes larger choices contain the smaller ones.

Validation needs labels, so the folds divide the labelled cases; unlabelled cases train in every fold. Where nothing can be held
out (``fold="all"``, ``folds=1``, or fewer than two labelled cases) the network trains on everything, and validation looks at up to
eight of the training cases: a sign of life, not a measurement, and recorded as ``"validation_in_training": true``.

Images of one patient stay together: where names are grouped, every number (of folds, of cases held out, of labels used) counts
groups. With several domains each has a split of its own, by the same rules and seeds; one ``splits.json`` holds them all.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json
from tools.data.decathlon import Case, Dataset
from tools.data.files import write_json
from tools.data.plan import nearest_or_raise

__all__ = [
    "case_groups",
    "FRAMES",
    "Split",
    "apply_split",
    "evaluation_cases",
    "make_splits",
    "read_domain_splits",
    "read_split",
    "report_pairs",
    "report_split",
    "select",
    "select_domains",
    "write_domain_splits",
    "write_split",
]

logger = logging.getLogger("evaluation")

EVALUATE_ON = ("held_out", "unlabelled", "all")
MONITORED = 8  # training cases looked at where no case is held out
#: training cases, names of those that are labelled, and a seed, to names in the order in which their labels are to be used
LabelOrder = Callable[[Sequence[Case], set[str], int], Iterable[str]]
FRAMES = r"^.+?(?=_frame|$)"  # the part of a name before "_frame": the patient of a moving picture


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


def _ordered(names: Iterable[str], *salt: Any) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(":".join([*map(str, salt), name]).encode()).digest())


def report_split(names: Iterable[str], report: int = 40, seed: int = 0) -> tuple[list[str], list[str]]:
    """Hold cases out for the final numbers.

    Args:
        names: case names, in any order.
        report: number of cases to hold out.
        seed: the written seed.

    Returns:
        the names to train on and the names to report, each sorted.

    Raises:
        DataError: no case would be left to train on.
    """
    names = list(names)
    if not 0 <= report < max(len(names), 1):
        raise DataError(f"too few cases: {len(names)}, of which {report} cannot be held out for the report")
    held_out = set(_ordered(names, seed, "report")[:report])
    return sorted(set(names) - held_out), sorted(held_out)


def report_pairs(n: int) -> list[tuple[int, int]]:
    """The documented registration pairs of ``n`` sorted report cases: moving k, fixed (7 k + 13) mod n.

    Where n is a multiple of 7, which would leave n / 7 fixed cases, it is (k + 13) mod n.

    Returns:
        (moving, fixed) indices; a case is never paired with itself (for n = 40 none would be: such pairs are left out).
    """
    step = 7 if n % 7 else 1
    return [(k, (step * k + 13) % n) for k in range(n) if (step * k + 13) % n != k]


def make_splits(
    dataset: Dataset, folds: int | str = 5, split_seed: int | str = 0, holdout: int | str = 0, group_pattern: str | None = None
) -> dict[str, Any]:
    """Divide a data set into folds.

    Args:
        dataset: the data set.
        folds: number of folds; fewer are made when there are fewer labelled cases. 1 or "all" makes one that trains on everything.
        split_seed: seed of the division and of the cases held out.
        holdout: number of labelled cases held out for the report (:func:`report_split`); of any cases where none has a label.
        group_pattern: regular expression; names whose first match is the same text (a patient's number) stay on the same side of
            every division, as do the cases of one ``patient``; ``holdout`` then counts groups. By default the ``group_by`` of
            ``dataset.json``, if it has one.

    Returns:
        ``{"dataset", "split_seed", "folds", "holdout", "group_pattern", "report": [names], "divisions": [{"train": [names],
        "validation": [names], "validation_in_training": bool}, ...]}``.

    Raises:
        DataError: a number is not one, or too few cases are left.
    """
    folds = 1 if folds == "all" else _number("folds", folds, least=1)
    split_seed, holdout = _number("split_seed", split_seed), _number("holdout", holdout, least=0)
    group_pattern = group_pattern or dataset.group_by
    group = case_groups(dataset, group_pattern)
    has_label = {case.name for case in dataset.cases if case.label is not None}
    # What has no label cannot be reported on.
    reportable = {group[name] for name in has_label} or set(group.values())
    report = report_split(reportable, holdout, split_seed)[1] if holdout else []
    names = [name for name in group if group[name] not in set(report)]
    if not names:
        raise DataError(f"{dataset.root / 'dataset.json'}: no training case")

    # Without a single label (unsupervised registration) validation needs none either.
    candidates = [name for name in names if name in has_label] or names
    groups = _ordered({group[name] for name in candidates}, split_seed)
    folds = min(folds, len(groups))
    divisions = []
    for k in range(folds):
        held_out = set(groups[k::folds]) if folds > 1 else set()
        validation = [name for name in candidates if group[name] in held_out]
        # A group goes as a whole: its unlabelled images are not trained on either.
        train = sorted(name for name in names if group[name] not in held_out)
        divisions.append(_division(train, validation, candidates, split_seed))
    return {
        "dataset": dataset.name,
        "split_seed": split_seed,
        "folds": folds,
        "holdout": holdout,
        "group_pattern": group_pattern,
        "report": sorted(name for name in group if group[name] in set(report)),
        "divisions": divisions,
    }


def _division(train: list[str], held_out: Iterable[str], candidates: Iterable[str], split_seed: Any) -> dict[str, Any]:
    """One fold; where nothing is held out, some of the candidates are looked at that are trained on."""
    validation = sorted(held_out)
    monitored = validation or sorted(_ordered(candidates, split_seed)[:MONITORED])
    return {"train": train, "validation": monitored, "validation_in_training": not validation}


def _trains_on_everything(folds: int | str, fold: int | str) -> bool:
    return "all" in (fold, folds) or str(folds) == "1"


def select(
    dataset: Dataset,
    folds: int | str = 5,
    fold: int | str = 0,
    split_seed: int | str = 0,
    label_limit: int | str | None = None,
    label_seed: int | str = 0,
    holdout: int | str = 0,
    group_pattern: str | None = None,
    splits_file: str | os.PathLike | None = None,
    rotate_labels: bool = False,
    label_order: LabelOrder | None = None,
    divided: Mapping[str, Any] | None = None,
) -> Split:
    """The cases of one run. Numbers may be strings, as they come from a command line.

    Args:
        dataset: the data set.
        folds: number of folds, or "all".
        fold: which one is validated on, from 0; "all" trains on everything.
        split_seed: seed of the division.
        label_limit: number of training cases (of groups, where there are any) whose labels are used; None, 0 or "all" for every
            one. A smaller choice is part of every larger one of the same seeds.
        label_seed: seed, beside ``split_seed``, of which cases these are.
        holdout: number of cases held out for the report.
        group_pattern: see :func:`make_splits`.
        splits_file: an existing ``splits.json`` to follow instead; of the other arguments only ``label_limit`` and ``label_seed``
            then still count, if the file has no list of labelled cases.
        rotate_labels: whether ``label_limit`` begins at another case in every fold, so that over the folds different ones are used;
            otherwise all folds use the same ones as far as they train on them.
        label_order: chooses the labels of ``label_limit`` in the place of chance; asked only where there is a limit.
        divided: folds of :func:`make_splits` that were made elsewhere.

    Raises:
        DataError: a number is not one or out of range, ``label_limit`` exceeds the labelled training cases, or the file does not
            fit the data set or lists the labels of another limit.
    """
    if splits_file:
        record = read_split(splits_file)
        return _follow(
            dataset, record, splits_file, split_seed=split_seed, label_limit=label_limit, label_seed=label_seed, label_order=label_order
        )
    everything = _trains_on_everything(folds, fold)
    plan = dict(divided or make_splits(dataset, 1 if everything else folds, split_seed, holdout, group_pattern))
    index = 0 if everything else _number("fold", fold, least=0)
    divisions = plan.pop("divisions")
    if index >= len(divisions) and not divisions[0]["validation_in_training"]:
        raise DataError(f"{dataset.root / 'dataset.json'}: fold {index} does not exist, there are {len(divisions)} (from 0)")
    division = divisions[min(index, len(divisions) - 1)]
    rotation = index / len(divisions) if rotate_labels else 0.0
    labelled = _limited(
        dataset, division["train"], plan["split_seed"], label_limit, label_seed, plan["group_pattern"], rotation, label_order
    )
    if division["validation_in_training"] and labelled:
        # Validating on a label that label_limit hides would let it in by the back door.
        division["validation"] = sorted(_ordered(labelled, plan["split_seed"])[:MONITORED])
    record = {
        **plan,
        "fold": "all" if everything else index,
        "label_limit": _limit(label_limit) or "all",
        "label_seed": _number("label_seed", label_seed),
        **({"label_choice": "typical"} if label_order and _limit(label_limit) else {}),
        **({"rotate_labels": True} if rotate_labels else {}),
        **division,
        "labelled": labelled,
    }
    return apply_split(dataset, record)


def apply_split(dataset: Dataset, record: Mapping[str, Any], source: str | os.PathLike | None = None) -> Split:
    """Look the names of a ``splits.json`` up in a data set.

    Args:
        dataset: the data set.
        record: lists of names ``train``, ``validation`` and, if wanted, ``report`` and ``labelled`` (all labels by default).
        source: the file the record came from, for messages.

    Raises:
        DataError: a name is not in the data set, or a report case is trained or validated on.
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
    labelled = set(lists["labelled"]) if "labelled" in record else set(known)
    train = tuple(known[name] if name in labelled else replace(known[name], label=None) for name in lists["train"])
    validation, report = (tuple(known[name] for name in lists[key]) for key in ("validation", "report"))
    return Split(train=train, validation=validation, report=report, record={**record, **lists, "labelled": _with_label(train)})


def evaluation_cases(
    dataset: Dataset, record: Mapping[str, Any] | None, source: str | os.PathLike | None = None, evaluate_on: str = "held_out"
) -> tuple[list[Case], dict[str, Any] | str]:
    """The labelled cases to evaluate a model on, sorted by name, and what they are.

    Args:
        dataset: the data set.
        record: the model's split, as :func:`read_split` gives it; None where it has none.
        source: file the record came from, for the messages.
        evaluate_on: "held_out": when every case the model was trained on is in the data set, its report cases (or, without any, its
            validation cases); when only some of them are, in a data set of the same name, all but these; otherwise the data are new to
            the model, and all count. "unlabelled": all but those whose label the model learnt from. "all": of data that are new to the
            model though names coincide.

    Raises:
        DataError: no labelled case is left, or ``evaluate_on`` is none of these.
    """
    if evaluate_on not in EVALUATE_ON:
        raise DataError(f"evaluate_on must be one of {EVALUATE_ON}, not {evaluate_on!r}")
    record, unlabelled = None if evaluate_on == "all" else record, evaluate_on == "unlabelled"
    cases: Sequence[Case] = dataset.cases
    split: dict[str, Any] | str = f"all labelled cases of {dataset.name}"
    trained = set() if record is None else set(record.get("labelled", record["train"]) if unlabelled else record["train"])
    present = trained & {case.name for case in cases}
    if record is not None and present == trained and not unlabelled:
        known = apply_split(dataset, record, source)
        cases = known.report or known.validation
        split = {key: value for key, value in record.items() if key not in ("train", "labelled")}
        if record.get("dataset", dataset.name) != dataset.name:
            logger.warning(
                f"{dataset.root}: has the names of the cases the model was trained on, of {record['dataset']}: evaluated on those held "
                f"out, {len(cases)} of {len(dataset.cases)}; --evaluate_on all where the names mean nothing"
            )
    elif present and (present == trained or record.get("dataset", dataset.name) == dataset.name):
        cases = [case for case in cases if case.name not in present]
        what = "whose label the model did not learn from" if unlabelled else "that the model was not trained on"
        split = f"labelled cases of {dataset.name} {what}"
    labelled = [case for case in cases if case.label is not None]
    if not labelled:
        raise DataError(f"{dataset.root}: no labelled case to evaluate on")
    if isinstance(split, dict) and split.get("validation_in_training") and not split.get("report"):
        logger.warning(f"{source or 'splits.json'}: nothing was held out, so the {len(labelled)} cases evaluated on are training cases")
    return sorted(labelled, key=lambda case: case.name), split


def read_split(path: str | os.PathLike) -> dict[str, Any]:
    """Read a ``splits.json``.

    Raises:
        DataError: it is missing, no JSON, or has no lists of names ``train`` and ``validation``.
    """
    return _checked_record(Path(path), read_json(path))


def _checked_record(path: Path, record: Any, of: str = "") -> dict[str, Any]:
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
        return {name: _follow(dataset, records[name], splits_file, label_limit=limits[name], **given) for name, dataset in domains.items()}
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
    plan = make_splits(together, 1 if _trains_on_everything(folds, fold) else folds, **options)
    result = {}
    for name, dataset in domains.items():

        def own(members: Iterable[str], prefix: str = f"{name}/") -> list[str]:
            return [member.removeprefix(prefix) for member in members if member.startswith(prefix)]

        divisions = []
        for division in plan["divisions"]:
            train = own(division["train"])
            held_out = [] if division["validation_in_training"] else own(division["validation"])
            labelled = [case.name for case in dataset.cases if case.name in set(train) and case.label is not None]
            divisions.append(_division(train, held_out, labelled or train, plan["split_seed"]))
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


def write_domain_splits(path: str | os.PathLike, splits: Mapping[str, Split]) -> None:
    """Write the splits of several domains as one ``splits.json``, ``{"domains": {name: record}}``, atomically."""
    write_json(path, {"domains": {name: split.record for name, split in splits.items()}})


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
    return {name: _checked_record(path, record, of=f"domain {name!r}: ") for name, record in records.items()}


def _follow(
    dataset: Dataset,
    record: dict[str, Any],
    source: str | os.PathLike,
    split_seed: int | str = 0,
    label_limit: int | str | None = None,
    label_seed: int | str = 0,
    label_order: LabelOrder | None = None,
) -> Split:
    if "labelled" not in record:
        seed, pattern = record.get("split_seed", split_seed), record.get("group_pattern")
        labelled = _limited(dataset, record["train"], seed, label_limit, label_seed, pattern, order=label_order)
        record = {**record, "labelled": labelled}
    elif _limit(label_limit) and _limit(label_limit) != record.get("label_limit"):
        raise DataError(f'{source}: says which labels are used ("labelled"); leave --label_limit away, or take that list out of it')
    return apply_split(dataset, record, source)


def _with_label(cases: Sequence[Case]) -> list[str]:
    return [case.name for case in cases if case.label is not None]


def _limited(
    dataset: Dataset,
    train: Iterable[str],
    split_seed: Any,
    label_limit: Any,
    label_seed: Any,
    group_pattern: str | None = None,
    rotation: float = 0.0,
    order: LabelOrder | None = None,
) -> list[str]:
    """Names of the training cases whose labels are used: groups in the order given, or in their seeded one, from the place ``rotation``
    (0 .. 1) on."""
    train, group = set(train), case_groups(dataset, group_pattern)
    labelled = [case.name for case in dataset.cases if case.label is not None]
    trained = {group[name] for name in labelled if name in train}
    limit = _limit(label_limit)
    if not limit:
        return sorted(name for name in labelled if name in train)
    if limit > len(trained):
        what = "groups (patients)" if group_pattern or any(name != of for name, of in group.items()) else "cases"
        raise DataError(f"{dataset.root / 'dataset.json'}: label_limit is {limit}, but only {len(trained)} training {what} are labelled")
    seed = _number("label_seed", label_seed)
    ranked: Iterable[str]
    if order:
        cases = [case for case in dataset.cases if case.name in train]
        ranked = (group[name] for name in order(cases, {name for name in labelled if name in train}, seed))
    else:
        # The circle holds the groups of all folds: every fold sees the same order, and takes of it what it trains on.
        circle = _ordered({group[name] for name in labelled}, _number("split_seed", split_seed), "label", seed)
        begin = int(rotation * len(circle) + 1e-9)
        ranked = (name for name in [*circle[begin:], *circle[:begin]] if name in trained)
    chosen: set[str] = set()
    for name in ranked:
        chosen.add(name)
        if len(chosen) == limit:
            break
    return sorted(name for name in labelled if name in train and group[name] in chosen)


def _limit(label_limit: Any) -> int:
    return 0 if label_limit in (None, "all", "") else _number("label_limit", label_limit, least=0)


def _number(name: str, value: Any, least: int | None = None) -> int:
    try:
        if isinstance(value, bool) or int(value) != float(value):
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(f"{name} must be an integer, not {value!r}") from None
    if least is not None and int(value) < least:
        raise DataError(f"{name} must be at least {least}, not {value!r}")
    return int(value)


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
