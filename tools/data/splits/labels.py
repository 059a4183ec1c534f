"""Whose labels are used, where not all are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tools.data.checks import DataError
from tools.data.decathlon import Case, Dataset
from tools.data.splits.groups import case_groups, seeded_order, whole_number

__all__ = ["LabelOrder", "limit_of", "limited_labels"]

#: training cases, names of those that are labelled, and a seed, to names in the order in which their labels are to be used
LabelOrder = Callable[[Sequence[Case], set[str], int], Iterable[str]]


def limited_labels(
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
    limit = limit_of(label_limit)
    if not limit:
        return sorted(name for name in labelled if name in train)
    if limit > len(trained):
        what = "groups (patients)" if group_pattern or any(name != of for name, of in group.items()) else "cases"
        raise DataError(f"{dataset.root / 'dataset.json'}: label_limit is {limit}, but only {len(trained)} training {what} are labelled")
    seed = whole_number("label_seed", label_seed)
    ranked: Iterable[str]
    if order:
        cases = [case for case in dataset.cases if case.name in train]
        ranked = (group[name] for name in order(cases, {name for name in labelled if name in train}, seed))
    else:
        # The circle holds the groups of all folds: every fold sees the same order, and takes of it what it trains on.
        circle = seeded_order({group[name] for name in labelled}, whole_number("split_seed", split_seed), "label", seed)
        begin = int(rotation * len(circle) + 1e-9)
        ranked = (name for name in [*circle[begin:], *circle[:begin]] if name in trained)
    chosen: set[str] = set()
    for name in ranked:
        chosen.add(name)
        if len(chosen) == limit:
            break
    return sorted(name for name in labelled if name in train and group[name] in chosen)


def limit_of(label_limit: Any) -> int:
    """The number of labels used, 0 for all."""
    return 0 if label_limit in (None, "all", "") else whole_number("label_limit", label_limit, least=0)
