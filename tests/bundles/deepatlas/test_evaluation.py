from __future__ import annotations

import csv
import json

import pytest

from deepatlas.evaluation import evaluation_cases
from tools.data.checks import DataError
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


def test_report_cases_of_the_model(ellipsoid_dataset, model):
    cases, split = evaluation_cases(ellipsoid_dataset, model)
    assert [case.name for case in cases] == sorted(json.loads((model / "splits.json").read_text())["report"])
    assert split["holdout"] == 3


def test_new_data_count_whole(tiny_dataset, model):
    cases, split = evaluation_cases(tiny_dataset, model)
    assert len(cases) == 6
    assert split == "all labelled cases of blobs"


def test_nothing_to_evaluate_on(tiny_dataset, model):
    content = json.loads((tiny_dataset / "dataset.json").read_text())
    content["training"] = [{"image": entry["image"]} for entry in content["training"]]
    (tiny_dataset / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no labelled case to evaluate on"):
        evaluation_cases(tiny_dataset, model)
