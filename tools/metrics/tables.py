"""Tables of results: written the same way by every evaluation, and compared case by case."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from scipy.stats import wilcoxon

from tools.data.files import write_csv, write_json

__all__ = ["average_over", "paired_test", "summarise", "versions", "write_metrics"]

Row = Mapping[str, Any]


def versions() -> dict[str, str]:
    """Versions that results depend on."""
    return {"torch": torch.__version__, "monai": monai.__version__, "numpy": np.__version__, "python": platform.python_version()}


def summarise(rows: Sequence[Row]) -> dict[str, dict[str, float | int | None]]:
    """``{metric: {"mean", "std", "n"}}`` of every numeric column.

    NaN and missing values are left out and n counts the rest; std is the sample's (n - 1). Where a figure is not defined it is None.
    """
    columns = dict.fromkeys(column for row in rows for column, value in row.items() if _is_number(value))
    return {column: _moments([float(row[column]) for row in rows if _is_number(row.get(column))]) for column in columns}


def write_metrics(folder: str | Path, rows: Sequence[Row], split: Any, seed: int | None, **details: Any) -> dict[str, Any]:
    """Write ``metrics.csv``, a row a case, and ``summary.json``, each atomically.

    Args:
        folder: is made if it is missing.
        rows: column to value; text columns (``case``) identify, numeric ones are metrics. NaN becomes an empty cell.
        split: what the cases are, a name or a JSON value such as ``{"fold": 0, "folds": 5}``.
        seed: of the split and the run.
        details: further JSON values for the summary (steps, seconds, ...).

    Returns:
        the summary: ``metrics`` as of :func:`summarise`, ``cases``, ``split``, ``seed``, ``threads``, ``versions`` and the details.

    Raises:
        ValueError: when there are no rows.
    """
    if not rows:
        raise ValueError(f"no rows to write to {folder}")
    summary = {
        "metrics": summarise(rows),
        "cases": len(rows),
        "split": split,
        "seed": seed,
        **details,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
    cleaned = [{column: None if _is_number(value) and math.isnan(value) else value for column, value in row.items()} for row in rows]
    write_csv(Path(folder) / "metrics.csv", cleaned)
    write_json(Path(folder) / "summary.json", summary)
    return summary


def average_over(rows: Iterable[Row], keys: Sequence[str]) -> list[dict[str, Any]]:
    """Average each case over repetitions (seeds, labelled cases), so that a test of significance counts cases, not runs.

    Args:
        rows: column to value. Text columns that are not in ``keys`` identify a row; numeric ones are averaged.
        keys: the columns to average over; they are dropped.

    Returns:
        one row for each identity, in order of appearance; numbers are means over the values that are not NaN.

    Raises:
        ValueError: when a key is no column of a row.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        missing = [key for key in keys if key not in row]
        if missing:
            raise ValueError(f"no column {missing[0]!r} in a row with {sorted(row)}")
        identity = tuple((column, value) for column, value in row.items() if column not in keys and not _is_number(value))
        groups.setdefault(identity, []).append(row)
    averaged = []
    for identity, members in groups.items():
        columns = dict.fromkeys(column for row in members for column, value in row.items() if column not in keys and _is_number(value))
        means = {column: _moments([float(row[column]) for row in members if _is_number(row.get(column))])["mean"] for column in columns}
        averaged.append(dict(identity) | {column: math.nan if mean is None else mean for column, mean in means.items()})
    return averaged


def paired_test(a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = 10000) -> dict[str, float | int]:
    """Compare two methods on the same cases: Wilcoxon's signed-rank test, two-sided, on the differences a - b.

    Args:
        a: one value a case, averaged over repetitions (:func:`average_over`).
        b: the other method's values of the same cases in the same order.
        seed: of the bootstrap.
        resamples: of the bootstrap over cases.

    Returns:
        ``n`` pairs without NaN, ``mean_difference`` with its 95 % percentile bootstrap interval ``ci95_low``, ``ci95_high``,
        ``median_difference``, and ``p_value`` (1 when all differences are zero).

    Raises:
        ValueError: when the lengths differ or no pair is left.
    """
    if len(a) != len(b):
        raise ValueError(f"paired values differ in number: {len(a)} and {len(b)}")
    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    difference = difference[~np.isnan(difference)]
    n = len(difference)
    if n == 0:
        raise ValueError("no pair of values to compare")
    generator = np.random.default_rng(seed)
    means = difference[generator.integers(0, n, (resamples, n))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "n": n,
        "mean_difference": float(difference.mean()),
        "ci95_low": float(low),
        "ci95_high": float(high),
        "median_difference": float(np.median(difference)),
        "p_value": float(wilcoxon(difference).pvalue) if difference.any() else 1.0,
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _moments(values: list[float]) -> dict[str, float | int | None]:
    defined = np.array([value for value in values if not math.isnan(value)])
    n = len(defined)
    return {"mean": float(defined.mean()) if n else None, "std": float(defined.std(ddof=1)) if n > 1 else None, "n": n}
