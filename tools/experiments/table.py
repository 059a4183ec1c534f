"""The table of an experiment: means of its rows, comparisons between them, and whether its requirements are reached."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.data.checks import DataError
from tools.data.files import atomic_path, write_csv, write_json
from tools.experiments.confusion import confuse, read_rows
from tools.experiments.definition import Definition, Metric, Requirement, Row
from tools.experiments.looks import looks, summarise_looks
from tools.experiments.projections import draw_projection
from tools.experiments.runs import Experiment
from tools.experiments.structures import UNDEFINED, csv_line, structure_table
from tools.metrics.tables import average_over, paired_test, summarise
from tools.pictures import table_picture

__all__ = ["compare", "judge", "named_patients", "read_metrics", "row_cases", "row_spreads", "write_table"]

LIMIT_SIGNS = {"at_least": "≥", "at_most": "≤", "above": ">", "below": "<"}
TEXTS = ("domain", "case", "patient")
Case = Mapping[str, Any]
Patients = Mapping[tuple[str | None, str], str]


def read_metrics(path: Path, metrics: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Rows of a ``metrics.csv``: ``case`` and, if there are such, ``domain`` and ``patient`` as text, and as numbers these columns and all
    others that hold nothing else, NaN for an empty cell or a missing column.

    Raises:
        DataError: the file is missing, has no column ``case``, or holds something else than numbers in one of these columns.
    """
    rows = read_rows(path)
    if any("case" not in row for row in rows):
        raise DataError(f"{path}: has no column 'case'")
    numbers: dict[str, list[float]] = {}
    for column in dict.fromkeys([*metrics, *(rows[0] if rows else ())]):
        try:
            if column not in TEXTS:
                numbers[column] = [float(row.get(column) or math.nan) for row in rows]
        except ValueError as error:
            if column in metrics:
                raise DataError(f"{path}: {error}") from None
    return [
        {key: row[key] for key in TEXTS if key == "case" or row.get(key)} | {column: values[k] for column, values in numbers.items()}
        for k, row in enumerate(rows)
    ]


def named_patients(files: Iterable[Path]) -> dict[tuple[str | None, str], str]:
    """(domain, case) to the ``patient`` that some ``metrics.csv`` names; results from before there was this column name none."""
    cases = [case for path in files for case in read_rows(path) if case.get("patient")]
    return {(case.get("domain") or None, case.get("case")): case["patient"] for case in cases}


def row_cases(
    row: Row, files: Mapping[tuple[str, str], Path], group_by: str | None = None, patients: Patients | None = None
) -> list[dict[str, Any]]:
    """The cases of a row of the table, each averaged over the row's runs, so that the number of cases is that of independent ones.

    Images of one patient in a domain are averaged as one case, which has his name. Cases of one name in two domains are two cases; where
    they are of one ``patient``, means over several domains and comparisons count them as one.

    Args:
        row: the row.
        files: ``metrics.csv`` of those of its (run, evaluation) that are finished.
        group_by: regular expression, for cases whose patient is not named: those whose names have the same first match are of one.
        patients: see :func:`named_patients`; by default of these files.

    Raises:
        DataError: the expression does not match the name of a case; or see :func:`read_metrics`.
    """
    return average_over(_row_values(row, files, group_by, patients), ["source"])


def row_spreads(
    row: Row, files: Mapping[tuple[str, str], Path], group_by: str | None = None, patients: Patients | None = None
) -> list[dict[str, Any]]:
    """As :func:`row_cases`, with the standard deviation over the row's runs in the place of the mean; NaN where a case has one run only."""
    by_case: dict[tuple, list[Case]] = {}
    for case in average_over(_row_values(row, files, group_by, patients), []):
        by_case.setdefault(_key(case), []).append(case)
    found = []
    for members in by_case.values():
        text = {key: members[0][key] for key in TEXTS if key in members[0]}
        values = {metric: np.array([member[metric] for member in members]) for metric in row.metrics}
        found.append(text | {metric: float(value.std(ddof=1)) if len(value) > 1 else math.nan for metric, value in values.items()})
    return found


def _row_values(row: Row, files: Mapping[tuple[str, str], Path], group_by: str | None, patients: Patients | None) -> list[dict[str, Any]]:
    patients = named_patients(files.values()) if patients is None else patients
    return [
        {"source": "/".join(source)} | case | _patient(case, group_by, patients)
        for source in row.of
        if source in files
        for case in read_metrics(files[source], row.metrics)
        if row.domain in (None, case.get("domain"))
    ]


def _key(case: Case) -> tuple[str | None, str]:
    return case.get("domain"), case.get("patient", case["case"])


def compare(a: Sequence[Case], b: Sequence[Case], metric: str, metric_b: str | None = None) -> dict[str, Any]:
    """:func:`tools.metrics.tables.paired_test` of a less b over the cases that both have, in ``metric``, b perhaps in ``metric_b``.

    Cases of one ``patient`` in several domains are no independent ones: their mean counts, once. Beside its statistics, ``mean_a`` and
    ``mean_b`` over these cases, and ``relative_difference``, the mean difference over ``mean_b``.

    Raises:
        DataError: they have no case in common.
    """
    others = {_key(case): case[metric_b or metric] for case in b}
    pairs: dict[Any, list[tuple[float, float]]] = {}
    for case in a:
        pair = case[metric], others.get(_key(case), math.nan)
        if math.isfinite(pair[0] - pair[1]):
            pairs.setdefault(case.get("patient", _key(case)), []).append(pair)
    if not pairs:
        raise DataError(f"no case with {metric} in both rows of a comparison")
    values = np.array([np.mean(members, axis=0) for members in pairs.values()])
    means = values.mean(axis=0)
    relative = float((means[0] - means[1]) / means[1]) if means[1] else None
    return paired_test(*values.T) | {"mean_a": float(means[0]), "mean_b": float(means[1]), "relative_difference": relative}


def judge(
    requirement: Requirement,
    rows: Mapping[str, Mapping[str, Any]],
    comparisons: Mapping[str, Mapping[str, Any]],
    confusions: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """The number a requirement is about and whether it is reached; both None while a run it needs is not finished.

    Args:
        requirement: the requirement.
        rows: name to ``{"complete": bool, "metrics": {metric: {"mean": ...}}}``.
        comparisons: name to a result of :func:`compare`, for those that could be made.
        confusions: name to a result of :func:`tools.experiments.confusion.confuse`, likewise.
    """
    value = difference = None
    if requirement.comparison is not None:
        compared = comparisons.get(requirement.comparison, {})
        value, difference = compared.get(requirement.statistic), compared.get("mean_difference")
    elif requirement.confusion is not None:
        value = (confusions or {}).get(requirement.confusion, {}).get("right")
    elif rows[requirement.row]["complete"]:
        value = rows[requirement.row]["metrics"][requirement.metric]["mean"]
    return {
        "limit": requirement.limit,
        "required": requirement.value,
        "value": value,
        "reached": None if value is None else requirement.reached(value, difference),
    }


def write_table(experiment: Experiment) -> dict[str, Any]:
    """Write what is known so far: ``table.json``, ``table.csv``, ``table.md``, and, once there is a result, ``cases.csv`` (a row of the
    table and case a line, with all that was measured), ``structures.csv`` where the definition asks for it, and ``figure.png``; and the
    figures of those projections whose evaluations are all finished.

    A row whose runs are not all finished stands for those that are, and says so; comparisons and requirements wait for all of them but
    the optional ones.
    Results of other settings than the definition's are left out.

    Returns:
        the content of ``table.json``.
    """
    definition = experiment.definition
    files = {
        (run, evaluation): experiment.run_dir(run) / evaluation / "metrics.csv"
        for run, value in definition.runs.items()
        for evaluation in value.evaluations
        if experiment.usable(run, evaluation)
    }
    patients = named_patients(files.values())
    cases = {name: row_cases(row, files, definition.group_by, patients) for name, row in definition.rows.items()}
    runs = {name: _run(experiment, name) for name in definition.runs}
    rows = {
        name: _row(row, cases[name], files, runs, definition) | {"validation": _validation(row, files, experiment)}
        for name, row in definition.rows.items()
        if not _left_out(row, definition, files)
    }
    comparisons = {}
    for name, item in definition.comparisons.items():
        if not all(rows.get(row, {}).get("complete") for row in (item.a, item.b)):
            continue
        values = [
            row_spreads(definition.rows[row], files, definition.group_by, patients) if item.spread else cases[row]
            for row in (item.a, item.b)
        ]
        columns = (item.metric, item.metric_b or item.metric)
        # Repetitions are often optional: no spread where they have not been done.
        if item.spread and any(all(_missing(case[metric]) for case in value) for value, metric in zip(values, columns)):
            continue
        found = compare(*values, item.metric, item.metric_b)
        comparisons[name] = {"a": item.a, "b": item.b, "metric": item.metric, "spread": item.spread, **found}
    confusions = {name: confuse(item, files) for name, item in definition.confusions.items() if _complete(item.of, definition, files)}
    projections = {
        name: draw_projection(experiment.folder / item.picture, name, item, {key: path.parent for key, path in files.items()})
        for name, item in definition.projections.items()
        if all(source in files for source in item.of.values())
    }
    open_row = {"complete": False}
    known = {name: rows.get(name, open_row) for name in definition.rows}
    table = {
        "experiment": definition.name,
        "bundle": experiment.bundle.name,
        "quick": experiment.quick,
        "settings": dict(definition.overrides) | (dict(definition.quick) if experiment.quick else {}),
        "patients": len(set(patients.values())),
        "rows": rows,
        "structures": structure_table(definition.structures, {name: cases[name] for name in rows}) if definition.structures else [],
        "comparisons": comparisons,
        "confusions": confusions,
        "projections": projections,
        "requirements": {name: judge(item, known, comparisons, confusions) for name, item in definition.requirements.items()},
        "runs": runs,
    }
    folder = experiment.folder
    write_json(folder / "table.json", table)
    networks = experiment.networks
    write_csv(folder / "table.csv", [_csv_row(name, row, definition, networks) for name, row in rows.items()])
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text(_markdown(table, definition, networks), encoding="utf-8")
    if table["structures"]:
        write_csv(folder / "structures.csv", map(csv_line, table["structures"]))
    lines = [
        {"row": name} | {key: None if _missing(value) else value for key, value in case.items() if key != "patient"}
        for name in rows
        for case in cases[name]
    ]
    if lines:
        text = ["row", *(["domain"] if any("domain" in line for line in lines) else []), "case"]
        write_csv(folder / "cases.csv", lines, list(dict.fromkeys([*text, *definition.metrics, *(key for line in lines for key in line)])))
        points = [{"row": name, "value": case[definition.rows[name].metrics[0]]} for name in rows for case in cases[name]]
        titles = dict.fromkeys(definition.metrics[definition.rows[name].metrics[0]].title for name in rows)
        label = " or ".join(titles) + ", one point a case"
        table_picture(folder / "figure.png", points, value="value", method="row", title=definition.name, label=label)
    return table


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _left_out(row: Row, definition: Definition, files: Mapping[tuple[str, str], Path]) -> bool:
    """Rows of optional runs show only once there is something in them."""
    return all(definition.runs[run].optional for run, _ in row.of) and not any(source in files for source in row.of)


def _run(experiment: Experiment, name: str) -> dict[str, Any]:
    record = experiment.record(name) or {"finished": False}
    return {key: record.get(key) for key in ("finished", "steps", "seconds", "threads", "versions")}


def _needed(of: Sequence[tuple[str, str]], definition: Definition) -> Sequence[tuple[str, str]]:
    """Those that are not optional, or all where all are."""
    return [source for source in of if not definition.runs[source[0]].optional] or of


def _complete(of: Sequence[tuple[str, str]], definition: Definition, files: Mapping[tuple[str, str], Path]) -> bool:
    return all(source in files for source in _needed(of, definition))


def _patient(case: Case, group_by: str | None, patients: Patients) -> dict[str, str]:
    """The case under the name of its patient, and the ``patient`` himself where he is named."""
    domain = case.get("domain")
    named = patients.get((domain, case["case"]))
    if named is not None:
        return {"case": named.removeprefix(f"{domain}: "), "patient": named}
    match = re.search(group_by or "(?s).*", case["case"])
    if match is None:
        raise DataError(f"group_by {group_by!r} does not match the case name {case['case']}")
    return {"case": match[0]}


def _each_once(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """The cases, those of one ``patient`` in several domains as one: the mean over the domains."""
    where = ("domain", "case")
    return average_over([{key: value for key, value in case.items() if "patient" not in case or key not in where} for case in cases], [])


def _row(
    row: Row,
    cases: Sequence[Case],
    files: Mapping[tuple[str, str], Path],
    runs: Mapping[str, Mapping[str, Any]],
    definition: Definition,
) -> dict[str, Any]:
    done = [source for source in row.of if source in files]
    used = [runs[run] for run in dict.fromkeys(run for run, _ in done)]
    seconds = [run["seconds"] for run in used]
    steps = [run["steps"] for run in used]
    patients = _each_once(cases)
    found = summarise(patients)
    return {
        "of": ["/".join(source) for source in row.of],
        "done": len(done),
        "runs": len({*done, *_needed(row.of, definition)}),
        "complete": _complete(row.of, definition, files),
        "cases": len(patients),
        "metrics": {metric: found.get(metric, UNDEFINED) for metric in row.metrics},
        "steps": steps[0] if steps and all(step == steps[0] for step in steps) else None,
        "training_seconds": sum(seconds) / len(seconds) if seconds and None not in seconds else None,
    }


def _validation(row: Row, files: Mapping[tuple[str, str], Path], experiment: Experiment) -> dict[str, Any] | None:
    """How the finished trainings of a row stood when they validated; None where nothing is asked for or logged."""
    tag = experiment.definition.validation
    if tag is None or row.domain is None and "{domain}" in tag:
        return None
    names = dict.fromkeys(run for run, evaluation in row.of if (run, evaluation) in files)
    return summarise_looks([looks(experiment.run_dir(name), tag.replace("{domain}", row.domain or "")) for name in names])


def _csv_row(name: str, row: Mapping[str, Any], definition: Definition, networks: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {"row": name, "runs_done": row["done"], "runs": row["runs"], "cases": row["cases"]}
    for metric in definition.metrics:
        moments = row["metrics"].get(metric, {})
        values |= {metric: moments.get("mean"), f"{metric}_std": moments.get("std")}
    for network in networks:
        values[f"{network}_steps"] = (row["steps"] or {}).get(network)
    seen = row["validation"] or {}
    values |= {f"validation_{key}": seen.get(key) for key in ("last", "best", "best_epoch")}
    return values | {"training_seconds": row["training_seconds"]}


def _markdown(table: Mapping[str, Any], definition: Definition, networks: Sequence[str]) -> str:
    """The table as it stands in a bundle's documentation."""
    metrics = definition.metrics
    lines = _markdown_table(
        ["", *(metric.title for metric in metrics.values()), f"steps ({' + '.join(networks)})", "minutes a training", "runs", "cases"],
        [
            [
                name,
                *(_mean_and_std(row["metrics"].get(metric), metrics[metric].decimals) for metric in metrics),
                "" if row["steps"] is None else " + ".join(str(row["steps"].get(network, 0)) for network in networks),
                "" if row["training_seconds"] is None else f"{row['training_seconds'] / 60:.1f}",
                str(row["done"]) if row["complete"] else f"{row['done']} of {row['runs']}",
                str(row["cases"]),
            ]
            for name, row in table["rows"].items()
        ],
    )
    cases = "patients, whose images are averaged" if definition.group_by or table["patients"] else "cases"
    lines += ["", f"Mean ± standard deviation over {cases}; a case is averaged over a row's runs first."]
    if table["structures"]:
        lines += ["", *_structures(table["structures"], definition.structures.metrics)]
    seen = {name: row["validation"] for name, row in table["rows"].items() if row["validation"]}
    if seen:
        header = [f"validation while training: {definition.validation}", "last look (epoch)", "best look (epoch)", "looks"]
        lines += ["", *_markdown_table(header, [[name, *_looks(value)] for name, value in seen.items()])]
    if table["comparisons"]:
        lines += [
            "",
            *_markdown_table(
                ["difference", "metric", "of", "mean", "95 % interval", "p (Wilcoxon, paired)", "cases"], _compared(table, definition)
            ),
        ]
    for name, item in table["confusions"].items():
        answers = sorted({answer for row in item["counts"].values() for answer in row})
        lines += ["", f"{name}: {item['right']:.1%} of {item['n']} right", ""]
        counts = [[truth, *(str(row.get(answer, 0)) for answer in answers)] for truth, row in item["counts"].items()]
        lines += _markdown_table([f"{item['truth']} \\ {item['answer']}", *answers], counts)
    for name, item in table["projections"].items():
        lines += ["", f"![{name}]({item['picture']})", "", *_silhouettes(name, item["of"])]
    if table["requirements"]:
        verdicts = {True: "reached", False: "**not reached**", None: "open"}
        rows = []
        for name, item in table["requirements"].items():
            value = "" if item["value"] is None else f"{item['value']:.4g}"
            rows.append([name, f"{LIMIT_SIGNS[item['limit']]} {item['required']:g}", value, verdicts[item["reached"]]])
        lines += ["", *_markdown_table(["required", "limit", "value", ""], rows)]
    finished = [run for run in table["runs"].values() if run["finished"]]
    if finished:
        threads = sorted({run["threads"] for run in finished})
        versions = " / ".join(sorted({", ".join(f"{name} {value}" for name, value in run["versions"].items()) for run in finished}))
        settings = ", ".join(f"{key} {value}" for key, value in table["settings"].items())
        lines += ["", f"Settings of all runs: {settings}. Threads: {', '.join(map(str, threads))}. Versions: {versions}."]
    return "\n".join(lines) + "\n"


def _structures(lines: Sequence[Mapping[str, Any]], metrics: Mapping[str, Metric]) -> list[str]:
    """Every structure by itself; a missed one has no distance, so that each metric has its own number of cases."""
    cells = []
    for line in lines:
        numbers = sorted({moments["n"] for moments in line["metrics"].values()})
        shown = [_mean_and_std(line["metrics"][name], metric.decimals) for name, metric in metrics.items()]
        text = [line["row"], line["domain"] or "", line["structure"]]
        cells.append([*text, *shown, " to ".join(map(str, dict.fromkeys((numbers[0], numbers[-1]))))])
    header = ["row", "domain", "structure", *(metric.title for metric in metrics.values()), "cases where defined"]
    return _markdown_table(header, cells)


def _looks(value: Mapping[str, Any]) -> list[str]:
    return [f"{value['last']:.3f} ({value['last_epoch']})", f"{value['best']:.3f} ({value['best_epoch']})", str(value["looks"])]


def _silhouettes(name: str, of: Mapping[str, Any]) -> list[str]:
    """A line for each of the figure's rows, and one for what its projections answer, where it has any."""
    scales = list(dict.fromkeys(scale for item in of.values() for scale in item["silhouette"]))
    lines = []
    for title, item in of.items():
        for part, text in (("silhouette", title), ("projected", f"{title}, after the projection")):
            if part in item:
                values = [item[part].get(scale) for scale in scales]
                lines.append([text, *("" if value is None else f"{value:.3f}" for value in values)])
    return _markdown_table([f"silhouette: {name}", *(f"scale {scale}" for scale in scales)], lines)


def _compared(table: Mapping[str, Any], definition: Definition) -> list[list[str]]:
    rows = []
    for name, item in table["comparisons"].items():
        places = definition.metrics[item["metric"]].decimals
        interval = f"{item['ci95_low']:+.{places}f} to {item['ci95_high']:+.{places}f}"
        title = definition.metrics[item["metric"]].title + (", standard deviation over runs" if item["spread"] else "")
        both = f"{item['mean_a']:.{places}f} and {item['mean_b']:.{places}f}"
        rows.append([name, title, both, f"{item['mean_difference']:+.{places}f}", interval, f"{item['p_value']:.2g}", str(item["n"])])
    return rows


def _mean_and_std(moments: Mapping[str, Any] | None, decimals: int) -> str:
    if not moments or moments["mean"] is None:
        return ""
    spread = "" if moments["std"] is None else f" ± {moments['std']:.{decimals}f}"
    return f"{moments['mean']:.{decimals}f}{spread}"


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)]
