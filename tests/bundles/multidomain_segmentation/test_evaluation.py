from __future__ import annotations

import csv
import json

import pytest

from tools.bundle.errors import cause
from tools.data.checks import DataError

METRICS = ("dice", "sensitivity", "specificity", "hd", "assd", "ravd")


@pytest.fixture(scope="module")
def evaluated(bundle_call, model, domains, tiny, tmp_path_factory):
    """Folder with ``metrics.csv`` and ``summary.json`` of the tiny model on its report cases."""
    output = tmp_path_factory.mktemp("evaluated")
    options = {**tiny, "spacing_unit": "voxel", "find_domains": "true"}
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
        assert row["auto_domain"] == row["domain"]
        assert all(float(row[f"{metric}_shell"]) >= 0 for metric in METRICS)
        assert bool(row["dice_core"]) == (row["domain"] == "disc")


def test_summary(evaluated):
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["cases"] == 4
    assert summary["spacing_unit"] == "voxel"
    assert summary["split"]["disc"]["holdout"] == 2
    means = [summary["domains"][name]["dice_mean"]["mean"] for name in ("disc", "square")]
    assert summary["metrics"]["dice_mean"]["mean"] == pytest.approx(sum(means) / 2)
    assert {"torch", "monai"} <= set(summary["versions"])


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("spacing_unit", "inch", "spacing_unit must be one of"), ("domains", "disk", "unknown domain"), ("dataset_dir", "third", "'bars'")],
)
def test_an_option_that_cannot_be(bundle_call, model, domains, third, tiny, tmp_path, option, value, message):
    options = {**tiny, "dataset_dir": domains, option: third if value == "third" else value}
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        bundle_call("evaluating", "train", "evaluate", model_dir=model, output_dir=tmp_path / "out", **options)
    assert isinstance(cause(caught.value), DataError)
    assert message in str(cause(caught.value))
    assert not (tmp_path / "out").exists()
