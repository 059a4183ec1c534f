"""What an experiment consists of, read from one JSON file.

Keys of the file (those with a * must be there):

``name``
    of the experiment, by default the file's name.
``overrides``
    ``{key: value}`` for every training: the split, and whatever the runs have in common.
``quick``
    ``{key: value}`` for every training on top of all others when only the mechanics are tried: few epochs, few cases.
``runs`` *
    ``{name: {...}}``, a training each: ``overlays`` (names of files in ``configs/experiments``, with or without ``.json``, or beside the
    definition), ``overrides`` (``{key: value}``), ``evaluations`` (names; by default every one there is), ``minutes`` (estimate for the
    list), ``optional`` (true: only on request).
``evaluations`` *
    ``{name: {key: value}}``: overrides of ``evaluating``, such as ``iterations``, ``affine_passes``, ``rotation``.
``metrics`` *
    ``{column: {"title": text, "decimals": 3}}``: columns of ``metrics.csv`` that the table shows, in order.
``rows`` *
    ``{name: {"of": ["run/evaluation", ...], "metrics": [columns]}}``: a row of the table. Each case is averaged over all of ``of``
    (seeds, labelled cases) before anything else; ``metrics``, by default all, starts with the one that the figure shows.
``comparisons``
    ``{name: {"a": row, "b": row, "metric": column}}``: a less b on the same cases, Wilcoxon's signed-rank test.
``requirements``
    ``{text: {...}}``: either ``row`` and ``metric``, on the mean over cases, or ``comparison`` with ``statistic`` ("mean_difference" by
    default, or "p_value"); and one of the limits ``at_least``, ``at_most``, ``below``.

Keys that begin with an underscore are remarks.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json

__all__ = ["Comparison", "Definition", "Metric", "Requirement", "Row", "Run", "read_definition"]

LIMITS = ("at_least", "at_most", "below")
STATISTICS = ("mean_difference", "p_value")
RESERVED = ("dataset_dir", "output_dir", "model_dir", "resume", "finetune")


@dataclass(frozen=True)
class Run:
    """A training and what is evaluated of it."""

    overlays: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    evaluations: tuple[str, ...] = ()
    minutes: float = 0.0
    optional: bool = False


@dataclass(frozen=True)
class Metric:
    """How a column of ``metrics.csv`` is shown."""

    title: str
    decimals: int = 3


@dataclass(frozen=True)
class Row:
    """A row of the table: what each case is averaged over, pairs (run, evaluation), and the columns it shows."""

    of: tuple[tuple[str, str], ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Row ``a`` less row ``b`` in one metric, case by case."""

    a: str
    b: str
    metric: str


@dataclass(frozen=True)
class Requirement:
    """A limit on the mean of a row's metric, or on a statistic of a comparison."""

    limit: str
    value: float
    row: str | None = None
    metric: str | None = None
    comparison: str | None = None
    statistic: str = "mean_difference"

    def reached(self, number: float) -> bool:
        """Whether a number keeps to the limit."""
        return {"at_least": number >= self.value, "at_most": number <= self.value, "below": number < self.value}[self.limit]


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


def read_definition(path: str | os.PathLike) -> Definition:
    """Read and check the definition of an experiment.

    Raises:
        DataError: the file is missing, no JSON, or something in it is unknown, of the wrong kind or missing.
    """
    path = Path(path)
    content = read_json(path)
    reader = _Reader(path)
    parts = {"name": str, **dict.fromkeys((*_MAPPINGS, *_NEEDED), dict)}
    content = {"name": path.stem} | {key: {} for key in _MAPPINGS} | reader.table("the file", content, parts, _NEEDED)

    overrides, quick = (reader.overrides(key, content[key]) for key in ("overrides", "quick"))
    evaluations = {name: reader.overrides(f"evaluation {name!r}", value) for name, value in reader.named(content, "evaluations")}
    metrics = {}
    for name, value in reader.named(content, "metrics"):
        metrics[name] = Metric(**reader.table(f"metric {name!r}", value, {"title": str, "decimals": int}, ("title",)))
    runs = {}
    for name, value in reader.named(content, "runs"):
        where = f"run {name!r}"
        kinds = {"overlays": list, "overrides": dict, "evaluations": list, "minutes": (int, float), "optional": bool}
        value = {"evaluations": list(evaluations)} | reader.table(where, value, kinds)
        runs[name] = Run(
            overlays=tuple(value.get("overlays", ())),
            overrides=reader.overrides(where, value.get("overrides", {})),
            evaluations=tuple(reader.known(where, "evaluation", key, evaluations) for key in value["evaluations"]),
            minutes=value.get("minutes", 0),
            optional=value.get("optional", False),
        )
    rows = {}
    for name, value in reader.named(content, "rows"):
        where = f"row {name!r}"
        value = {"metrics": list(metrics)} | reader.table(where, value, {"of": list, "metrics": list}, ("of",))
        shown = tuple(reader.known(where, "metric", key, metrics) for key in value["metrics"])
        rows[name] = Row(tuple(reader.source(where, text, runs) for text in value["of"]), shown)
        if not rows[name].of or not shown:
            raise DataError(f"{path}: {where} needs at least one entry of 'of' and of 'metrics'")
    comparisons = {}
    for name, value in reader.named(content, "comparisons"):
        where = f"comparison {name!r}"
        value = reader.table(where, value, {"a": str, "b": str, "metric": str}, ("a", "b", "metric"))
        for row in (value["a"], value["b"]):
            reader.known(where, "metric", value["metric"], rows[reader.known(where, "row", row, rows)].metrics)
        comparisons[name] = Comparison(**value)
    requirements = {name: reader.requirement(name, value, rows, comparisons) for name, value in reader.named(content, "requirements")}
    return Definition(path, content["name"], overrides, quick, runs, evaluations, metrics, rows, comparisons, requirements)


_NEEDED = ("runs", "evaluations", "metrics", "rows")
_MAPPINGS = ("overrides", "quick", "comparisons", "requirements")


class _Reader:
    """Checks the parts of one file; every message names it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def known(self, where: str, what: str, name: Any, names: Collection[str]) -> str:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
            raise DataError(f"{self.path}: {where} has an unknown {what} {name!r}; {hint}")
        return name

    def table(self, where: str, value: Any, kinds: Mapping[str, Any], needed: Collection[str] = ()) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DataError(f"{self.path}: {where} must be a JSON object, not {type(value).__name__}")
        value = {key: item for key, item in value.items() if not key.startswith("_")}
        for key, item in value.items():
            self.known(where, "key", key, kinds)
            if not isinstance(item, kinds[key]) or isinstance(item, bool) and kinds[key] is not bool:
                raise DataError(f"{self.path}: {where} has {key!r} of the wrong kind ({type(item).__name__})")
        for key in needed:
            if key not in value:
                raise DataError(f"{self.path}: {where} lacks {key!r}")
        return value

    def named(self, content: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
        items = [(name, value) for name, value in content[key].items() if not name.startswith("_")]
        for name, _ in items:
            # runs and evaluations are folders
            if key in ("runs", "evaluations") and not name.replace("_", "").replace("-", "").isalnum():
                raise DataError(f"{self.path}: {key} has the name {name!r}; use letters, digits, - and _")
        return items

    def overrides(self, where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DataError(f"{self.path}: {where} must be a JSON object of overrides, not {type(value).__name__}")
        for key, item in value.items():
            if key in RESERVED:
                raise DataError(f"{self.path}: {where} must not set {key!r}, the experiment does")
            if item is None:
                raise DataError(f"{self.path}: {where} sets {key!r} to null, which the command line cannot say")
        return dict(value)

    def source(self, where: str, text: Any, runs: Mapping[str, Run]) -> tuple[str, str]:
        run, _, evaluation = str(text).partition("/")
        self.known(where, "run", run, runs)
        return run, self.known(f"{where}, run {run!r}", "evaluation", evaluation, runs[run].evaluations)

    def requirement(self, name: str, value: Any, rows: Mapping[str, Row], comparisons: Mapping[str, Comparison]) -> Requirement:
        where = f"requirement {name!r}"
        kinds = dict.fromkeys(("row", "metric", "comparison", "statistic"), str) | dict.fromkeys(LIMITS, (int, float))
        value = self.table(where, value, kinds)
        limits = [key for key in LIMITS if key in value]
        if len(limits) != 1:
            raise DataError(f"{self.path}: {where} needs one of {', '.join(LIMITS)}")
        if "comparison" in value:
            if "row" in value or "metric" in value:
                raise DataError(f"{self.path}: {where} is on a comparison and on a row; choose one")
            self.known(where, "comparison", value["comparison"], comparisons)
            self.known(where, "statistic", value.get("statistic", STATISTICS[0]), STATISTICS)
        elif "row" in value and "metric" in value and "statistic" not in value:
            self.known(where, "metric", value["metric"], rows[self.known(where, "row", value["row"], rows)].metrics)
        else:
            raise DataError(f"{self.path}: {where} needs a row and a metric, or a comparison and perhaps a statistic")
        limit = limits[0]
        return Requirement(limit, value.pop(limit), **value)
