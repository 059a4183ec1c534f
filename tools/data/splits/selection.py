"""The cases of a run on one data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tools.data.checks import DataError
from tools.data.decathlon import Dataset
from tools.data.splits.division import make_splits, monitored, trains_on_everything
from tools.data.splits.groups import whole_number
from tools.data.splits.labels import LabelOrder, limit_of, limited_labels
from tools.data.splits.split import Split, apply_split, read_split

__all__ = ["follow", "select"]


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
        return follow(
            dataset, record, splits_file, split_seed=split_seed, label_limit=label_limit, label_seed=label_seed, label_order=label_order
        )
    everything = trains_on_everything(folds, fold)
    plan = dict(divided or make_splits(dataset, 1 if everything else folds, split_seed, holdout, group_pattern))
    index = 0 if everything else whole_number("fold", fold, least=0)
    divisions = plan.pop("divisions")
    if index >= len(divisions) and not divisions[0]["validation_in_training"]:
        raise DataError(f"{dataset.root / 'dataset.json'}: fold {index} does not exist, there are {len(divisions)} (from 0)")
    division = divisions[min(index, len(divisions) - 1)]
    rotation = index / len(divisions) if rotate_labels else 0.0
    labelled = limited_labels(
        dataset, division["train"], plan["split_seed"], label_limit, label_seed, plan["group_pattern"], rotation, label_order
    )
    if division["validation_in_training"] and labelled:
        # Validating on a label that label_limit hides would let it in by the back door.
        division["validation"] = monitored(labelled, plan["split_seed"])
    record = {
        **plan,
        "fold": "all" if everything else index,
        "label_limit": limit_of(label_limit) or "all",
        "label_seed": whole_number("label_seed", label_seed),
        **({"label_choice": "typical"} if label_order and limit_of(label_limit) else {}),
        **({"rotate_labels": True} if rotate_labels else {}),
        **division,
        "labelled": labelled,
    }
    return apply_split(dataset, record)


def follow(
    dataset: Dataset,
    record: dict[str, Any],
    source: str | os.PathLike,
    split_seed: int | str = 0,
    label_limit: int | str | None = None,
    label_seed: int | str = 0,
    label_order: LabelOrder | None = None,
) -> Split:
    """The cases that a record of ``splits.json`` lists; where it does not say whose labels are used, ``label_limit`` does.

    Raises:
        DataError: it does not fit the data set, or lists the labels of another limit.
    """
    if "labelled" not in record:
        seed, pattern = record.get("split_seed", split_seed), record.get("group_pattern")
        labelled = limited_labels(dataset, record["train"], seed, label_limit, label_seed, pattern, order=label_order)
        record = {**record, "labelled": labelled}
    elif limit_of(label_limit) and limit_of(label_limit) != record.get("label_limit"):
        raise DataError(f'{source}: says which labels are used ("labelled"); leave --label_limit away, or take that list out of it')
    return apply_split(dataset, record, source)
