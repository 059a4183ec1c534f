"""Who is held out for the report, and the folds of the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tools.data.checks import DataError
from tools.data.decathlon import Dataset
from tools.data.splits.groups import case_groups, seeded_order, whole_number

__all__ = ["make_splits", "monitored", "one_division", "report_pairs", "report_split", "trains_on_everything"]

MONITORED = 8  # training cases looked at where no case is held out


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
    held_out = set(seeded_order(names, seed, "report")[:report])
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
    folds = 1 if folds == "all" else whole_number("folds", folds, least=1)
    split_seed, holdout = whole_number("split_seed", split_seed), whole_number("holdout", holdout, least=0)
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
    groups = seeded_order({group[name] for name in candidates}, split_seed)
    folds = min(folds, len(groups))
    divisions = []
    for k in range(folds):
        held_out = set(groups[k::folds]) if folds > 1 else set()
        validation = [name for name in candidates if group[name] in held_out]
        # A group goes as a whole: its unlabelled images are not trained on either.
        train = sorted(name for name in names if group[name] not in held_out)
        divisions.append(one_division(train, validation, candidates, split_seed))
    return {
        "dataset": dataset.name,
        "split_seed": split_seed,
        "folds": folds,
        "holdout": holdout,
        "group_pattern": group_pattern,
        "report": sorted(name for name in group if group[name] in set(report)),
        "divisions": divisions,
    }


def one_division(train: list[str], held_out: Iterable[str], candidates: Iterable[str], split_seed: Any) -> dict[str, Any]:
    """One fold; where nothing is held out, some of the candidates are looked at that are trained on."""
    validation = sorted(held_out)
    return {"train": train, "validation": validation or monitored(candidates, split_seed), "validation_in_training": not validation}


def monitored(names: Iterable[str], split_seed: Any) -> list[str]:
    """Up to eight of the training cases, to look at where none is held out."""
    return sorted(seeded_order(names, split_seed)[:MONITORED])


def trains_on_everything(folds: int | str, fold: int | str) -> bool:
    """Whether nothing is held out: the fold is "all", or there is one."""
    return "all" in (fold, folds) or str(folds) == "1"
