"""Finds and reads the definition of an experiment; what its parts mean stands in :mod:`tools.experiments.definition`."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from tools.data.checks import DataError, read_json
from tools.data.domains import domain_name
from tools.experiments.definition import Comparison, Confusion, Definition, Metric, Projection, Requirement, Row, Run, Structures
from tools.experiments.repeats import holds, repetitions

__all__ = ["find_definition", "read_definition"]

LIMITS = ("at_least", "at_most", "above", "below")
STATISTICS = ("mean_difference", "relative_difference", "p_value")
SIGNS = ("positive", "negative")
RESERVED = ("dataset_dir", "output_dir", "model_dir", "resume", "finetune")


def find_definition(bundle: Path, name: str | None = None) -> Path:
    """Path of one of a bundle's definitions.

    Args:
        bundle: the bundle's folder.
        name: of a file in its ``configs/experiments``, with or without ``.json``, or a path; by default the definition that says
            ``"default": true``, or the only one.

    Raises:
        DataError: there is none of that name, or none that is the default; the message names those there are.
    """
    if name is not None and (len(Path(name).parts) > 1 or Path(name).is_file()):
        return Path(name)
    folder = bundle / "configs" / "experiments"
    contents = {path: read_json(path) for path in sorted(folder.glob("*.json"))}
    found = {path.stem: path for path, content in contents.items() if isinstance(content, dict) and "runs" in content}
    if name is not None:
        stem = name.removesuffix(".json")
        if stem not in found:
            near = difflib.get_close_matches(stem, found, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(found) or 'none'}"
            raise DataError(f"{folder}: there is no definition {name!r}; {hint}")
        return found[stem]
    default = [path for path in found.values() if contents[path].get("default") is True or len(found) == 1]
    if not found:
        raise DataError(f"{folder}: no experiment is defined")
    if len(default) != 1:
        raise DataError(f"{folder}: {len(default)} definitions are the default; give --definition, one of {', '.join(found)}")
    return default[0]


def read_definition(path: str | os.PathLike) -> Definition:
    """Read and check the definition of an experiment.

    Raises:
        DataError: the file is missing, no JSON, or something in it is unknown, of the wrong kind or missing.
    """
    path = Path(path)
    content = read_json(path)
    reader = _Reader(path)
    plain = {"name": str, "default": bool, "group_by": str, "validation": str, "quick_runs": str, "structures": dict}
    parts = {**plain, **dict.fromkeys((*_MAPPINGS, *_NEEDED), dict)}
    content = {"name": path.stem} | {key: {} for key in _MAPPINGS} | reader.table("the file", content, parts, _NEEDED)

    overrides, quick = (reader.overrides(key, content[key]) for key in ("overrides", "quick"))
    evaluations = {name: reader.overrides(f"evaluation {name!r}", value) for name, value in reader.named(content, "evaluations")}
    metrics = reader.metrics("metric", content)
    runs: dict[str, Run] = {}
    for name, value in reader.named(content, "runs"):
        for repetition, run in reader.runs(name, value, overrides, evaluations).items():
            if repetition in runs:
                raise DataError(f"{path}: two runs are named {repetition!r}")
            runs[repetition] = run
    rows = reader.rows(content, runs, metrics)
    comparisons = {}
    for name, value in reader.named(content, "comparisons"):
        where = f"comparison {name!r}"
        kinds = {"a": str, "b": str, "metric": str, "metric_b": str, "spread": bool}
        value = reader.table(where, value, kinds, ("a", "b", "metric"))
        for row, metric in ((value["a"], value["metric"]), (value["b"], value.get("metric_b", value["metric"]))):
            reader.known(where, "metric", metric, rows[reader.known(where, "row", row, rows)].metrics)
        comparisons[name] = Comparison(**value)
    confusions = {name: reader.confusion(name, value, runs) for name, value in reader.named(content, "confusions")}
    projections = {name: reader.projection(name, value, runs, evaluations) for name, value in reader.named(content, "projections")}
    reader.one_file_each({name: item.picture for name, item in projections.items()})
    return Definition(
        path=path,
        name=content["name"],
        overrides=overrides,
        quick=quick,
        runs=runs,
        evaluations=evaluations,
        metrics=metrics,
        rows=rows,
        comparisons=comparisons,
        requirements={
            name: reader.requirement(name, value, rows, comparisons, confusions) for name, value in reader.named(content, "requirements")
        },
        confusions=confusions,
        projections=projections,
        structures=reader.structures(content["structures"], rows) if "structures" in content else None,
        group_by=reader.pattern("group_by", content.get("group_by")),
        validation=content.get("validation"),
        quick_runs=content.get("quick_runs"),
    )


def _may_be_of(domain: str, name: str, run: Run) -> bool:
    """Whether a run whose name matches is not one of another domain, in whose name this one's is a part: ``knee`` in ``knee_left``."""
    named = [value for value in run.overrides.values() if isinstance(value, str) and value in name]
    return domain in named or not any(domain in value for value in named)


_NEEDED = ("runs", "evaluations", "metrics", "rows")
_MAPPINGS = ("overrides", "quick", "comparisons", "confusions", "projections", "requirements")


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
            if not isinstance(item, kinds[key]) or isinstance(item, bool) and bool not in ensure_tuple(kinds[key]):
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

    def metrics(self, what: str, content: Mapping[str, Any]) -> dict[str, Metric]:
        kinds = {"title": str, "decimals": int}
        return {name: Metric(**self.table(f"{what} {name!r}", value, kinds, ("title",))) for name, value in self.named(content, "metrics")}

    def structures(self, value: Any, rows: Mapping[str, Row]) -> Structures:
        value = self.table("structures", value, {"rows": list, "metrics": dict}, ("rows", "metrics"))
        shown = tuple(self.known("structures", "row", name, rows) for name in value["rows"])
        metrics = self.metrics("structures, metric", value)
        if not shown or not metrics:
            raise DataError(f"{self.path}: structures needs at least one entry of 'rows' and of 'metrics'")
        return Structures(shown, metrics)

    def overrides(self, where: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise DataError(f"{self.path}: {where} must be a JSON object of overrides, not {type(value).__name__}")
        for key, item in value.items():
            if key in RESERVED:
                raise DataError(f"{self.path}: {where} must not set {key!r}, the experiment does")
            if item is None:
                raise DataError(f"{self.path}: {where} sets {key!r} to null, which the command line cannot say")
        return dict(value)

    def pattern(self, where: str, text: str | None) -> str | None:
        try:
            re.compile(text or "")
        except re.error as error:
            raise DataError(f"{self.path}: {where} {text!r} is not a regular expression ({error})") from None
        return text

    def runs(self, name: str, value: Any, overrides: Mapping[str, Any], evaluations: Collection[str]) -> dict[str, Run]:
        """A run, or the runs it stands for."""
        where = f"run {name!r}"
        kinds = {"overlays": list, "overrides": dict, "evaluations": (list, dict), "evaluating": list, "minutes": (int, float)}
        kinds |= {"optional": (bool, dict), "repeat": dict}
        value = {"evaluations": list(evaluations), "repeat": {}, "optional": False} | self.table(where, value, kinds)
        own = self.overrides(where, value.get("overrides", {}))
        passed, result = value.get("evaluating", ()), {}
        wanted = value["evaluations"] if isinstance(value["evaluations"], dict) else dict.fromkeys(value["evaluations"], True)
        for key, condition in wanted.items():
            self.known(where, "evaluation", key, evaluations)
            if not isinstance(condition, (bool, dict)):
                raise DataError(f"{self.path}: {where} must map the evaluation {key!r} to true or to an object, not to {condition!r}")
        try:
            for repetition, more in repetitions(name, value["repeat"]).items():
                result[repetition] = Run(
                    overlays=tuple(value.get("overlays", ())),
                    overrides=self.overrides(where, {**own, **more}),
                    evaluations=tuple(key for key, condition in wanted.items() if holds(f"the evaluation {key!r}", condition, more)),
                    evaluating=tuple(self.known(f"{where}, evaluating,", "override", key, {**overrides, **own, **more}) for key in passed),
                    minutes=value.get("minutes", 0),
                    optional=holds("optional", value["optional"], more),
                )
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{self.path}: {where}: {error}") from None
        return result

    def rows(self, content: Mapping[str, Any], runs: Mapping[str, Run], metrics: Mapping[str, Metric]) -> dict[str, Row]:
        """The rows, then those that show a row for one domain, domain after domain."""
        result, derived = {}, {}
        for name, value in self.named(content, "rows"):
            where = f"row {name!r}"
            kinds = {"of": list, "metrics": list, "domain": str, "domains": list}
            value = {"metrics": list(metrics), "domains": []} | self.table(where, value, kinds, ("of",))
            shown = self.columns(where, value["metrics"], metrics)
            named = domain_name(value["domain"]) if "domain" in value else None
            if not value["of"] or not shown:
                raise DataError(f"{self.path}: {where} needs at least one entry of 'of' and of 'metrics'")
            if "domain" in value and value["domains"]:
                raise DataError(f"{self.path}: {where} is about one domain already, and cannot have 'domains'")
            result[name] = Row(self.sources(where, value["of"], runs, named), shown, named)
            for domain in map(domain_name, value["domains"]):
                derived.setdefault(domain, {})[f"{name}, {domain}"] = Row(self.sources(where, value["of"], runs, domain), shown, domain)
        for more in derived.values():
            for name in more:
                if name in result:
                    raise DataError(f"{self.path}: two rows are named {name!r}")
            result |= more
        return result

    def columns(self, where: str, texts: list[Any], metrics: Mapping[str, Metric]) -> tuple[str, ...]:
        """Columns that entries of "metrics" name."""
        result = []
        for text in map(str, texts):
            found = fnmatch.filter(metrics, text) if "*" in text else [self.known(where, "metric", text, metrics)]
            if not found:
                raise DataError(f"{self.path}: {where} has {text!r}, which names no metric; known: {', '.join(metrics)}")
            result += found
        return tuple(dict.fromkeys(result))

    def sources(self, where: str, texts: list[Any], runs: Mapping[str, Run], domain: str | None = None) -> tuple[tuple[str, str], ...]:
        """Pairs (run, evaluation) that entries of "of" name."""
        result = []
        for text in texts:
            pattern, _, evaluation = str(text).replace("{domain}", domain or "*").partition("/")
            found = fnmatch.filter(runs, pattern) if "*" in pattern else [self.known(where, "run", pattern, runs)]
            if domain and "{domain}" in str(text):
                found = [run for run in found if _may_be_of(domain, run, runs[run])]
            if not found:
                raise DataError(f"{self.path}: {where} has {text!r}, which names no run; known: {', '.join(runs)}")
            result += [(run, self.known(f"{where}, run {run!r}", "evaluation", evaluation, runs[run].evaluations)) for run in found]
        return tuple(dict.fromkeys(result))

    def confusion(self, name: str, value: Any, runs: Mapping[str, Run]) -> Confusion:
        where = f"confusion {name!r}"
        kinds = {"of": list, "truth": str, "answer": str, "alike": list}
        value = self.table(where, value, kinds, ("of", "truth", "answer"))
        alike = value.get("alike", [])
        if not all(isinstance(group, list) for group in alike):
            raise DataError(f"{self.path}: {where} has 'alike' of the wrong kind; it must be a list of lists")
        return Confusion(self.sources(where, value["of"], runs), value["truth"], value["answer"], tuple(map(tuple, alike)))

    def projection(self, name: str, value: Any, runs: Mapping[str, Run], evaluations: Mapping[str, Mapping[str, Any]]) -> Projection:
        where = f"projection {name!r}"
        of = {}
        for title, text in self.table(where, value, {"of": dict}, ("of",))["of"].items():
            sources = self.sources(where, [text], runs)
            if len(sources) != 1:
                raise DataError(f"{self.path}: {where} has {text!r}, which names {len(sources)} runs; name one")
            evaluation = sources[0][1]
            if evaluations[evaluation].get("embeddings") is not True:
                raise DataError(f"{self.path}: {where} needs an evaluation that sets 'embeddings' to true, {evaluation!r} does not")
            of[title] = sources[0]
        slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        if not of or not slug:
            raise DataError(f"{self.path}: {where} needs a name with letters or digits, and at least one entry of 'of'")
        return Projection(of, f"{slug}.png")

    def one_file_each(self, pictures: Mapping[str, str]) -> None:
        """Refuse two figures of one file name, and that of the table's own."""
        taken = {"figure.png": "the table"}
        for name, picture in pictures.items():
            if picture in taken:
                raise DataError(f"{self.path}: projection {name!r} would be drawn as {picture}, which is that of {taken[picture]}")
            taken[picture] = f"{name!r}"

    def requirement(
        self,
        name: str,
        value: Any,
        rows: Mapping[str, Row],
        comparisons: Mapping[str, Comparison],
        confusions: Mapping[str, Confusion],
    ) -> Requirement:
        where = f"requirement {name!r}"
        kinds = dict.fromkeys(("row", "metric", "comparison", "statistic", "confusion", "sign"), str) | dict.fromkeys(LIMITS, (int, float))
        value = self.table(where, value, kinds)
        limits = [key for key in LIMITS if key in value]
        if len(limits) != 1:
            raise DataError(f"{self.path}: {where} needs one of {', '.join(LIMITS)}")
        subjects = [key for key in ("row", "comparison", "confusion") if key in value]
        if len(subjects) > 1:
            raise DataError(f"{self.path}: {where} is on a {' and on a '.join(subjects)}; choose one")
        if subjects == ["comparison"] and "metric" not in value:
            self.known(where, "comparison", value["comparison"], comparisons)
            of_p_value = self.known(where, "statistic", value.get("statistic", STATISTICS[0]), STATISTICS) == "p_value"
            if of_p_value != ("sign" in value):
                raise DataError(f"{self.path}: {where} needs a 'sign' if its statistic is 'p_value', and only then")
            if of_p_value:
                self.known(where, "sign", value["sign"], SIGNS)
        elif subjects == ["row"] and "metric" in value and not {"statistic", "sign"} & set(value):
            self.known(where, "metric", value["metric"], rows[self.known(where, "row", value["row"], rows)].metrics)
        elif subjects == ["confusion"] and not {"metric", "statistic", "sign"} & set(value):
            self.known(where, "confusion", value["confusion"], confusions)
        else:
            raise DataError(f"{self.path}: {where} needs a row and a metric, or a comparison and perhaps a statistic, or a confusion")
        limit = limits[0]
        return Requirement(limit, value.pop(limit), **value)
