"""Which answers were given to which truth: the confusion matrix of two columns of text."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.data.checks import DataError
from tools.experiments.definition import Confusion

__all__ = ["confuse", "read_rows"]


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV file as text.

    Raises:
        DataError: it is missing or not readable.
    """
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))
    except OSError as error:
        raise DataError(f"{path}: missing or not readable") from error


def confuse(confusion: Confusion, files: Mapping[tuple[str, str], Path]) -> dict[str, Any]:
    """Count the answers over all rows of the results that are there; a case in two runs counts twice.

    Args:
        confusion: the columns, and the values that are as good as each other.
        files: ``metrics.csv`` of those of its (run, evaluation) that are finished.

    Returns:
        ``truth`` and ``answer``, the columns, ``counts`` (truth to answer to number of rows, sorted), ``n`` and ``right``, the share of
        answers that are the truth or alike.

    Raises:
        DataError: there is no row, or one lacks a column.
    """
    counts: dict[str, Counter[str]] = {}
    for source in confusion.of:
        for row in read_rows(files[source]) if source in files else ():
            for column in (confusion.truth, confusion.answer):
                if not row.get(column):
                    raise DataError(f"{files[source]}: has no {column!r} in a row")
            counts.setdefault(row[confusion.truth], Counter())[row[confusion.answer]] += 1
    total = sum(map(Counter.total, counts.values()))
    if not total:
        raise DataError(f"no row with {confusion.truth!r} and {confusion.answer!r}")
    alike = {value: set(group) for group in confusion.alike for value in group}
    right = sum(number for truth, row in counts.items() for answer, number in row.items() if answer in alike.get(truth, {truth}))
    return {
        "truth": confusion.truth,
        "answer": confusion.answer,
        "counts": {truth: dict(sorted(counts[truth].items())) for truth in sorted(counts)},
        "n": total,
        "right": right / total,
    }
