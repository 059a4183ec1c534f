"""What an experiment consists of, read from one JSON file.

A bundle's definitions lie among its overlays, in ``configs/experiments``: they are the files with ``runs`` in them
(:func:`tools.experiments.reading.find_definition`).

Keys of the file (those with a * must be there):

``name``
    of the experiment, by default the file's name.
``default``
    true in the one definition of a bundle that is meant where none is named; a bundle with one definition needs none.
``overrides``
    ``{key: value}`` for every training: the split, and whatever the runs have in common.
``quick``
    ``{key: value}`` for every training on top of all others when only the mechanics are tried: few epochs, few cases.
``quick_runs``
    names of runs, or patterns, with commas between, that such a trial does; by default all that are not optional.
``group_by``
    regular expression: cases whose names have the same first match are of one patient, and are averaged as one case. It is for results
    that do not say it themselves, by a column ``patient`` of ``metrics.csv``, such as those of a data set that names patients; one with
    images in several domains is a case of each, and one case of rows over several domains and of comparisons.
``validation``
    name of a metric that trainings log to TensorBoard whenever they validate, higher being better, such as ``dice_{domain}``, with the
    row's domain in the place of ``{domain}``: the table then says how each row's trainings stood at their last look, and at the best.
``runs`` *
    ``{name: {...}}``, a training each: ``overlays`` (names of files in ``configs/experiments``, with or without ``.json``, or beside the
    definition), ``overrides`` (``{key: value}``), ``evaluations`` (names; by default every one there is), ``evaluating`` (keys whose
    overrides hold for the evaluations too, such as the domain that the run is about), ``minutes`` (estimate for the list), ``optional``
    (true: only on request), ``repeat`` (``{key: [values]}``: a run for every combination, the first key's values outermost, each with these
    overrides and with a name made of them: ``full_seed0_fold3``, texts without their key: ``individual_knee_fold3``). ``optional`` may then
    be ``{key: [values]}``: only the runs with one of these values are; and ``evaluations`` may be ``{name: {key: [values]}}``: only such
    runs are evaluated so, or ``{name: true}`` all of them.
``evaluations`` *
    ``{name: {key: value}}``: overrides of ``evaluating``, such as ``iterations``, ``affine_passes``, ``rotation``. A new one leaves the
    results of the others as they are. ``"foreign_dir": true`` stands for the folder that ``--foreign_dir`` of the command names; where it
    names none, such an evaluation is passed over.
``metrics`` *
    ``{column: {"title": text, "decimals": 3}}``: columns of ``metrics.csv`` that the table shows, in order.
``rows`` *
    ``{name: {"of": ["run/evaluation", ...], "metrics": [columns]}}``: a row of the table; ``*`` in the name of a run stands for any
    letters. Each case is averaged over all of ``of`` (seeds, labelled cases) before anything else; optional runs count once they are
    done. ``metrics``, by default all, starts with the one that the figure shows; ``*`` stands for any letters there, too. ``"domain":
    name`` keeps the cases of one domain (the column ``domain`` of ``metrics.csv``; cases of one name in two domains are two cases).
    ``"domains": [names]`` adds a row for each, "<row>, <domain>", after all others; ``{domain}`` in ``of`` is the domain there, and
    ``*`` in the row of all.
``structures``
    ``{"rows": [names], "metrics": {metric: {"title": text, "decimals": 3}}}``: a further table, ``structures.csv``, of every structure by
    itself: mean and standard deviation of the columns ``<metric>_<structure>`` of ``metrics.csv``, for each of these rows, and each domain
    of its cases.
``comparisons``
    ``{name: {"a": row, "b": row, "metric": column}}``: a less b on the same cases, Wilcoxon's signed-rank test and a bootstrap interval.
    ``"metric_b"``: the column of b where it is another one, such as that of a baseline which the same evaluation scores.
    ``"spread": true`` compares not a case's mean over the row's runs but its standard deviation over them, the spread over seeds.
``confusions``
    ``{name: {"of": ["run/evaluation", ...], "truth": column, "answer": column, "alike": [[values], ...]}}``: how often each answer was
    given to each truth, by columns of text in ``metrics.csv``; values that are ``alike`` count as right for each other.
``projections``
    ``{name: {"of": {title: "run/evaluation", ...}}}``: one figure, named after its name (``with_and_without.png``), of the maps that these
    evaluations drew of their embeddings: a row a title, a column a scale, coloured by domain; and a table of the silhouettes. The
    evaluations must set ``embeddings`` to true, and write an ``embeddings.csv`` (columns domain, scale, x, y) and into ``summary.json``
    ``{"embeddings": {"silhouette": {scale: number}, "projected": {scale: number}}}``, the second where there is such.
``requirements``
    ``{text: {...}}``: either ``row`` and ``metric``, on the mean over cases, or ``comparison`` with ``statistic`` ("mean_difference" by
    default, "relative_difference", which is that over the mean of b, or "p_value", which wants a ``sign`` as well: "positive" where a is
    to be above b, "negative" where below), or ``confusion``, on the share that is right; and one of the limits ``at_least``, ``at_most``,
    ``above``, ``below``.

Keys that begin with an underscore are remarks.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Comparison", "Confusion", "Definition", "Metric", "Projection", "Requirement", "Row", "Run", "Structures"]


@dataclass(frozen=True)
class Run:
    """A training and what is evaluated of it; one of several where the definition repeats it."""

    overlays: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    evaluations: tuple[str, ...] = ()
    evaluating: tuple[str, ...] = ()
    minutes: float = 0.0
    optional: bool = False


@dataclass(frozen=True)
class Metric:
    """How a column of ``metrics.csv`` is shown."""

    title: str
    decimals: int = 3


@dataclass(frozen=True)
class Row:
    """A row of the table: what each case is averaged over, pairs (run, evaluation), the columns it shows, and the domain it is about."""

    of: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]
    domain: str | None = None


@dataclass(frozen=True)
class Structures:
    """Rows whose structures are shown one by one, and how: metrics by the beginning of their columns, ``dice`` of ``dice_tibia``."""

    rows: tuple[str, ...]
    metrics: Mapping[str, Metric]


@dataclass(frozen=True)
class Comparison:
    """Row ``a`` less row ``b`` in one metric, case by case: in each case's mean over the rows' runs, or in its spread over them."""

    a: str
    b: str
    metric: str
    metric_b: str | None = None
    spread: bool = False


@dataclass(frozen=True)
class Confusion:
    """Two columns of text, the truth and an answer, in the results of pairs (run, evaluation), and values that are as good as
    each other."""

    of: tuple[tuple[str, str], ...]
    truth: str
    answer: str
    alike: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Projection:
    """Maps of embeddings in one figure: title of a row to the (run, evaluation) that drew it; ``picture`` is the figure's file name."""

    of: Mapping[str, tuple[str, str]]
    picture: str


@dataclass(frozen=True)
class Requirement:
    """A limit on the mean of a row's metric, on a statistic of a comparison, or on the share of right answers of a confusion.

    ``sign``: which the mean difference must have besides, "positive" or "negative"; a p-value alone says nothing of it.
    """

    limit: str
    value: float
    row: str | None = None
    metric: str | None = None
    comparison: str | None = None
    statistic: str = "mean_difference"
    confusion: str | None = None
    sign: str | None = None

    def reached(self, number: float, difference: float | None = None) -> bool:
        """Whether a number keeps to the limit, and the mean difference, wanted where there is a sign, to the sign."""
        limits = {"at_least": operator.ge, "at_most": operator.le, "above": operator.gt, "below": operator.lt}
        signs = {"positive": operator.gt, "negative": operator.lt}
        return limits[self.limit](number, self.value) and (self.sign is None or signs[self.sign](difference, 0))


@dataclass(frozen=True)
class Definition:
    """An experiment; the module's text says what its parts mean. ``path`` is the file it came from."""

    path: Path
    name: str
    overrides: Mapping[str, Any]
    quick: Mapping[str, Any]
    runs: Mapping[str, Run]
    evaluations: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Metric]
    rows: Mapping[str, Row]
    comparisons: Mapping[str, Comparison]
    requirements: Mapping[str, Requirement]
    confusions: Mapping[str, Confusion] = field(default_factory=dict)
    projections: Mapping[str, Projection] = field(default_factory=dict)
    structures: Structures | None = None
    group_by: str | None = None
    validation: str | None = None
    quick_runs: str | None = None

    def of_foreign_images(self, evaluation: str) -> bool:
        """Whether an evaluation is of images that the command line names, beside the data set."""
        return self.evaluations[evaluation].get("foreign_dir") is True
