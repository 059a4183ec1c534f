"""The cases that a trained model is evaluated on."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.data.checks import DataError
from tools.data.decathlon import Case, Dataset
from tools.data.splits.split import apply_split, read_split

__all__ = ["evaluation_cases", "evaluation_cases_of_model"]

logger = logging.getLogger("evaluation")

EVALUATE_ON = ("held_out", "unlabelled", "all")


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


def evaluation_cases_of_model(
    dataset: Dataset, model_dir: str | os.PathLike, evaluate_on: str = "held_out"
) -> tuple[list[Case], dict[str, Any] | str]:
    """:func:`evaluation_cases` by the ``splits.json`` in a model's folder, where there is one. Raises DataError when it is unfit."""
    path = Path(model_dir) / "splits.json"
    return evaluation_cases(dataset, read_split(path) if path.is_file() else None, path, evaluate_on)
