from __future__ import annotations

import csv
import json

import pytest

from deepatlas.evaluation import evaluate
from deepatlas.registering import Registrar
from tools.data.checks import DataError
from tools.data.plan import Plan
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
    assert summary["seed"] is None  # the command does not know the training's
    assert {"mean", "std", "n"} == set(summary["metrics"]["dice_mean"])
    assert summary["split"]["holdout"] == 3
    assert {"torch", "monai"} <= set(summary["versions"])


ONE_STEP = {"epochs": 1, "epoch_length": 2, "validation_interval": 1, "holdout": 3}


def test_a_model_of_a_registration_network_alone(train, bundle_call, tiny, dataset, tmp_path):
    """What never learnt is not written, evaluated or used: the refinement of a pair goes without segmentations."""
    model = train(tmp_path / "model", "experiments/unsupervised", **ONE_STEP)
    assert (model / "registration.pt").is_file()
    assert not (model / "model.pt").exists()
    options = {"dataset_dir": dataset, "model_dir": model, **tiny}
    bundle_call("evaluating", "train", "evaluate", **options, output_dir=tmp_path / "evaluated", iterations=2)
    metrics = json.loads((tmp_path / "evaluated" / "summary.json").read_text())["metrics"]
    assert "registration_dice_mean" in metrics
    assert "dice_mean" not in metrics


def test_a_model_of_a_segmentation_network_alone(train, bundle_call, tiny, dataset, tmp_path):
    model = train(tmp_path / "model", "experiments/seg_only", **ONE_STEP)
    assert (model / "model.pt").is_file()
    assert not (model / "registration.pt").exists()
    bundle_call("evaluating", "train", "evaluate", **{"dataset_dir": dataset, "model_dir": model, "output_dir": tmp_path / "out", **tiny})
    metrics = json.loads((tmp_path / "out" / "summary.json").read_text())["metrics"]
    assert "dice_mean" in metrics
    assert not any(name.startswith("registration") for name in metrics)


def test_a_folder_without_weights(model, dataset, tmp_path):
    registrar = Registrar(None, Plan.load(model / "plan.json"))
    with pytest.raises(DataError, match="neither model.pt nor registration.pt"):
        evaluate(dataset, tmp_path, tmp_path / "out", None, registrar)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rotation", [-5, 200])
def test_a_rotation_that_is_none(model, dataset, tmp_path, rotation):
    with pytest.raises(DataError, match=rf"--rotation is by 0 to 180 degrees, not {rotation}"):
        evaluate(dataset, model, tmp_path, None, Registrar(None, Plan.load(model / "plan.json")), rotation=rotation)
