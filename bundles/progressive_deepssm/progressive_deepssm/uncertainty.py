"""What the expected errors of points tell: where on the shape errors are usual, and which case is bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

__all__ = ["PointErrors", "RankCorrelation", "add_usual_uncertainty", "over_cases", "rank_correlation"]


class PointErrors(NamedTuple):
    """What a network expected of its points, and how far they really are, each (M,), mm.

    Attributes:
        expected: their uncertainty.
        surface: distance from the true surface.
        point: distance from the true point; None without one.
    """

    expected: np.ndarray
    surface: np.ndarray
    point: np.ndarray | None


def add_usual_uncertainty(rows: Sequence[dict[str, Any]], errors: Sequence[PointErrors]) -> None:
    """Add to each case's metrics what one map for all cases reaches, the mean of their uncertainties: ``usual_uncertainty_spearman`` and
    ``usual_uncertainty_surface_spearman``. What the uncertainty of a case tells beyond where errors are usual is the difference."""
    usual = np.mean([own.expected for own in errors], axis=0)
    for row, own in zip(rows, errors):
        row["usual_uncertainty_surface_spearman"] = rank_correlation(usual, own.surface).statistic
        if own.point is not None:
            row["usual_uncertainty_spearman"] = rank_correlation(usual, own.point).statistic


def over_cases(rows: Sequence[Mapping[str, Any]], points: int) -> dict[str, dict[str, float | int | None]]:
    """Rank correlation over the cases of the mean uncertainty and an error: whether it tells which case is bad.

    Args:
        rows: metrics of the cases.
        points: of the last scale.

    Returns:
        error (``surface_mm``, ``rmse_mm_<M>``) to ``spearman``, ``p_value`` (None where not defined) and ``n``.
    """
    found: dict[str, dict[str, float | int | None]] = {}
    for metric in ("surface_mm", f"rmse_mm_{points}"):
        pairs = np.array([(row["uncertainty_mm"], row[metric]) for row in rows if metric in row]).reshape(-1, 2)
        result = rank_correlation(*pairs.T)
        values = {"spearman": result.statistic, "p_value": result.pvalue}
        found[metric] = {**{name: float(value) if np.isfinite(value) else None for name, value in values.items()}, "n": len(pairs)}
    return found


class RankCorrelation(NamedTuple):
    """Spearman's, and its two-sided p-value; NaN where it is not defined."""

    statistic: float
    pvalue: float


def rank_correlation(first: np.ndarray, second: np.ndarray) -> RankCorrelation:
    """Spearman's rank correlation; NaN of fewer than three pairs, or where one side has no spread."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return RankCorrelation(float("nan"), float("nan"))
    found = spearmanr(first, second)
    return RankCorrelation(float(found.statistic), float(found.pvalue))
