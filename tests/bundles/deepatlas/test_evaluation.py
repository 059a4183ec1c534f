from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from deepatlas.evaluation import evaluate
from deepatlas.networks import registration_from_plan
from deepatlas.registering import Registrar
from tools.bundle.training_record import read_training
from tools.data.checks import DataError
from tools.data.decathlon import case_name
from tools.data.plan import Plan
from tools.data.splits import report_pairs
from tools.experiments.reading import read_definition
from tools.shape.particles import write_particles


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


@pytest.mark.parametrize(
    ("definition", "structures"), [("hippocampus", ("anterior", "posterior")), ("phantoms", ("femur", "tibia", "patella"))]
)
def test_tables_show_columns_that_are_written(evaluated, bundle, definition, structures):
    """Of registrations: Dice of every structure, HD95, folds, SDlogJ, inverse consistency and seconds; of segmentations the first two."""
    with open(evaluated / "metrics.csv", newline="") as stream:
        columns = csv.DictReader(stream).fieldnames
    written = {column.replace("core", structure) for column in columns for structure in structures}
    found = read_definition(bundle.files(f"experiments/{definition}")[0])
    points = {"registration_tre", "registration_tre_before"} if definition == "phantoms" else set()
    assert set(found.metrics) <= written | points  # these data have none
    segmentation = {f"dice_{name}" for name in ("mean", *structures)} | {"hd95_mean"}
    measures = ("folding_percent", "sd_log_jacobian", "inverse_consistency", "seconds")
    registration = {f"registration_{name}" for name in (*segmentation, *measures)} | points
    assert {frozenset(row.metrics) for row in found.rows.values()} <= {
        frozenset(segmentation),
        frozenset(registration),
        frozenset(segmentation | registration),
    }


def test_summary(evaluated, model):
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["cases"] == 3
    assert summary["seed"] == 0
    assert summary["steps"] == read_training(model)["steps"]
    assert {"mean", "std", "n"} == set(summary["metrics"]["dice_mean"])
    assert summary["split"]["holdout"] == 3
    assert {"torch", "monai"} <= set(summary["versions"])


@pytest.mark.parametrize("rotation", [0, 20])
def test_the_data_sets_points(bundle_call, tiny, dataset, model, tmp_path, rotation):
    """Voxel (15, 16, 14) of every image is one point: near the centre, about which images turn and lie on each other."""
    data = shutil.copytree(dataset, tmp_path / "data")
    for image in (data / "imagesTr").iterdir():
        point = nib.affines.apply_affine(nib.load(image).affine, [[15, 16, 14]]) * [-1, -1, 1]
        write_particles(data / "particles" / f"{case_name(image)}.particles", point)
    options = {"dataset_dir": data, "model_dir": model, "output_dir": tmp_path / "out", "rotation": rotation, **tiny}
    bundle_call("evaluating", "train", "evaluate", **options)
    with open(tmp_path / "out" / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        # 1.3 mm from the centre, turned by up to 20 degrees; the turned image has a new grid, whose centre may be as far from the old one
        assert float(row["registration_tre_before"]) <= (1e-3 if rotation == 0 else 1.3 * 2 * np.sin(np.radians(10)) + 1.31)
        assert float(row["registration_tre"]) > 0.01
    assert any(float(row["registration_tre_before"]) > 0.01 for row in rows) == (rotation > 0)


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


@pytest.mark.parametrize("rotation", [-5, 200, "a bit"])
def test_a_rotation_that_is_none(model, dataset, tmp_path, rotation):
    with pytest.raises(DataError, match=rf"--rotation must be a number from 0 to 180, not {rotation!r}"):
        evaluate(dataset, model, tmp_path, None, Registrar(None, Plan.load(model / "plan.json")), rotation=rotation)


def test_cases_that_the_grid_crops(model, dataset, tmp_path, caplog):
    plan = replace(Plan.load(model / "plan.json"), size=(16, 32, 32))
    evaluate(dataset, model, tmp_path, None, Registrar(registration_from_plan(plan), plan))
    assert caplog.text.count("3 image(s) are larger than the network's grid, 16 x 32 x 32") == 1
