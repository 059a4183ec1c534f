"""The metrics of every structure by itself: rows of an experiment's table, domain by domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tools.experiments.definition import Structures
from tools.metrics.tables import summarise

__all__ = ["csv_line", "structure_table"]

# columns of a metric that are of no structure (tools.metrics.segmentation)
OF_ALL = ("mean", "union")
UNDEFINED = {"mean": None, "std": None, "n": 0}


def structure_table(structures: Structures, cases: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Mean and standard deviation of the metrics of every structure, over the cases of each row in each domain.

    Args:
        structures: the rows and the metrics.
        cases: name of a row to its cases (:func:`tools.experiments.table.row_cases`); rows without an entry are left out.

    Returns:
        for each domain, structure and row ``row``, ``domain`` (None where cases name none), ``structure`` and ``metrics``, metric to its
        ``mean``, ``std`` and ``n`` cases where it is defined. The rows of a structure follow each other, to be compared.
    """
    lines: dict[str | None, dict[str, list[dict[str, Any]]]] = {}
    for row in structures.rows:
        by_domain: dict[str | None, list[Mapping[str, Any]]] = {}
        for case in cases.get(row, ()):
            by_domain.setdefault(case.get("domain"), []).append(case)
        for domain, members in by_domain.items():
            # a structure of another domain has columns too, without any number in them
            found = {column: moments for column, moments in summarise(members).items() if moments["n"]}
            names = [
                column.removeprefix(f"{metric}_") for column in found for metric in structures.metrics if column.startswith(f"{metric}_")
            ]
            for name in dict.fromkeys(name for name in names if name not in OF_ALL):
                metrics = {metric: found.get(f"{metric}_{name}", UNDEFINED) for metric in structures.metrics}
                line = {"row": row, "domain": domain, "structure": name, "metrics": metrics}
                lines.setdefault(domain, {}).setdefault(name, []).append(line)
    return [line for of_domain in lines.values() for of_structure in of_domain.values() for line in of_structure]


def csv_line(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of ``structures.csv``: of each metric the mean, the standard deviation and the number of cases."""
    text = {key: line[key] for key in ("row", "domain", "structure") if line[key] is not None}
    for metric, moments in line["metrics"].items():
        text |= {metric: moments["mean"], f"{metric}_std": moments["std"], f"{metric}_n": moments["n"]}
    return text
