from __future__ import annotations

import csv
import json

from tools.data.splits import report_pairs


def test_one_row_a_report_case(evaluated, model):
    report = json.loads((model / "splits.json").read_text())["report"]
    with open(evaluated / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == sorted(report)
    pairs = {report[fixed]: report[moving] for moving, fixed in report_pairs(len(report))}
    assert {row["case"]: row["moving"] for row in rows} == pairs
    for column in (
        "dice_mean",
        "dice_core",
        "dice_shell",
        "registration_dice_mean",
        "registration_folding_percent",
        "registration_seconds",
    ):
        assert all(float(row[column]) >= 0 for row in rows), column


def test_summary(evaluated):
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["cases"] == 3
    assert summary["seed"] == 0
    assert {"mean", "std", "n"} == set(summary["metrics"]["dice_mean"])
    assert summary["split"]["holdout"] == 3
    assert {"torch", "monai"} <= set(summary["versions"])
