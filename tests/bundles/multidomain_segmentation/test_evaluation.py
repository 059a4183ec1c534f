from __future__ import annotations

import csv
import json
import shutil

import pytest

from tools.bundle.errors import cause
from tools.bundle.training_record import read_training
from tools.data.checks import DataError

METRICS = ("dice", "sensitivity", "specificity", "hd", "assd", "ravd")


@pytest.fixture(scope="module")
def evaluated(bundle_call, model, domains, tiny, tmp_path_factory):
    """Folder with ``metrics.csv`` and ``summary.json`` of the tiny model on its report cases."""
    output = tmp_path_factory.mktemp("evaluated")
    options = {**tiny, "spacing_unit": "voxel", "find_domains": "true", "embeddings": "true", "worst_pictures": 1}
    bundle_call("evaluating", "train", "evaluate", dataset_dir=domains, model_dir=model, output_dir=output, **options)
    return output


def test_one_row_a_report_case_of_every_domain(evaluated, model):
    records = json.loads((model / "splits.json").read_text())["domains"]
    with open(evaluated / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["domain"], row["case"]) for row in rows] == [
        (name, case) for name in ("disc", "square") for case in records[name]["report"]
    ]
    for row in rows:
        assert float(row["dice_shell"]) > 0.6
        assert row["auto_domain"] == row["auto_answer"] == row["domain"]
        assert all(float(row[f"{metric}_shell"]) >= 0 for metric in METRICS)
        assert bool(row["dice_core"]) == (row["domain"] == "disc")
    assert "patient" not in rows[0]  # nobody has said of these cases whose images they are


def test_summary(evaluated, model):
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["cases"] == 4
    assert summary["seed"] == 0
    assert summary["steps"] == read_training(model)["steps"]
    assert summary["spacing_unit"] == "voxel"
    assert summary["split"]["disc"]["holdout"] == 2
    means = [summary["domains"][name]["dice_mean"]["mean"] for name in ("disc", "square")]
    assert summary["metrics"]["dice_mean"]["mean"] == pytest.approx(sum(means) / 2)
    assert {"torch", "monai"} <= set(summary["versions"])


def test_embeddings_of_every_slice_at_every_scale(evaluated, model):
    records = json.loads((model / "splits.json").read_text())["domains"]
    with open(evaluated / "embeddings.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["case", "slice", "domain", "scale", "x", "y"]
    # every slice shows a structure: 8 of a disc, 6 of a square
    expected = {
        (case, str(index), name, str(scale))
        for name, slices in (("disc", 8), ("square", 6))
        for case in records[name]["report"]
        for index in range(slices)
        for scale in (1, 2, 3, 4)
    }
    assert {(row["case"], row["slice"], row["domain"], row["scale"]) for row in rows} == expected
    assert len(rows) == len(expected)
    found = json.loads((evaluated / "summary.json").read_text())["embeddings"]
    assert found["slices"] == len(expected) / 4
    assert list(found["silhouette"]) == list(found["projected"]) == ["1", "2", "3", "4"]
    # bright discs on a dark ground and dark squares on a bright one
    assert found["silhouette"]["4"] > 0.5
    assert all(-1 <= value <= 1 for part in ("silhouette", "projected") for value in found[part].values())
    assert (evaluated / "embeddings.png").stat().st_size > 10_000


def test_pictures_of_the_worst_case_of_every_domain(evaluated):
    with open(evaluated / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    worst = {
        name: min((row for row in rows if row["domain"] == name), key=lambda row: float(row["dice_mean"])) for name in ("disc", "square")
    }
    expected = {f"worst_{name}_1_{row['case']}.png" for name, row in worst.items()}
    assert {path.name for path in evaluated.glob("worst_*")} == expected


def test_all_cases_whose_label_was_not_learnt_from(bundle_call, model, domains, tiny, tmp_path):
    copy = shutil.copytree(model, tmp_path / "model")
    content = json.loads((copy / "splits.json").read_text())
    for record in content["domains"].values():
        record["labelled"] = ["case_03"]
        record["train"] = sorted({"case_03", *record["train"]} - set(record["report"]))
    content["domains"]["square"]["report"], content["domains"]["square"]["validation"] = [], []
    content["domains"]["disc"]["group_pattern"] = "[0-9]+"
    (copy / "splits.json").write_text(json.dumps(content))
    data = shutil.copytree(domains, tmp_path / "data")
    description = json.loads((data / "square" / "dataset.json").read_text())
    description["training"][1]["patient"] = 7
    (data / "square" / "dataset.json").write_text(json.dumps(description))
    options = {**tiny, "dataset_dir": data, "model_dir": copy, "output_dir": tmp_path / "out", "evaluate_on": "unlabelled"}
    bundle_call("evaluating", "train", "evaluate", **options)
    with open(tmp_path / "out" / "metrics.csv", newline="") as stream:
        rows = [(row["domain"], row["case"], row["patient"]) for row in csv.DictReader(stream)]
    numbers = [k for k in range(6) if k != 3]
    # by the training's expression; by the entry of the data set, which says nothing of the others
    assert rows[:5] == [("disc", f"case_{k:02d}", f"disc: {k:02d}") for k in numbers]
    assert rows[5:] == [("square", f"case_{k:02d}", "7" if k == 1 else "") for k in numbers]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["split"]["square"] == "labelled cases of square whose label the model did not learn from"


def test_images_of_no_domain_are_refused(bundle_call, model, domains, third, tiny, tmp_path):
    options = {**tiny, "dataset_dir": domains, "model_dir": model, "output_dir": tmp_path / "out", "foreign_dir": third}
    bundle_call("evaluating", "train", "evaluate", **options)
    with open(tmp_path / "out" / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    answers = [(row["case"], row["auto_answer"], row["expected"]) for row in rows]
    assert answers == [(f"case_{k:02d}", "refused", "refused") for k in range(4)]
    assert all(row["auto_domain"] in ("disc", "square") for row in rows)
    assert all(float(row["auto_distance"]) > float(row["auto_threshold"]) for row in rows)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["refused"] == 1
    assert summary["cases"] == 4


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("spacing_unit", "inch", "spacing_unit must be one of"),
        ("evaluate_on", "validation", "evaluate_on must be one of"),
        ("domains", "disk", "unknown domain"),
        ("target", 2019, "unknown domain"),
        ("dataset_dir", "third", "'bars'"),
        ("dataset_dir", "", "no data set: give --dataset_dir, a folder of data sets"),
        ("embeddings", "maybe", "expected true or false"),
        ("foreign_dir", "nowhere", "nowhere: no such folder"),
        ("worst_pictures", "three", "worst_pictures must be a whole number"),
        ("worst_pictures", -1, "worst_pictures must be a whole number"),
    ],
)
def test_an_option_that_cannot_be(bundle_call, model, domains, third, tiny, tmp_path, option, value, message):
    options = {**tiny, "dataset_dir": domains, option: third if value == "third" else value}
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        bundle_call("evaluating", "train", "evaluate", model_dir=model, output_dir=tmp_path / "out", **options)
    assert isinstance(cause(caught.value), DataError)
    assert message in str(cause(caught.value))
    assert not (tmp_path / "out").exists()
