from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch

from tools.metrics.tables import average_over, paired_test, summarise, write_metrics

ROWS = [{"case": "a", "dice": 0.5, "hd95": 2.0}, {"case": "b", "dice": 0.7, "hd95": math.nan}, {"case": "c", "dice": 0.9}]


def test_summary_by_hand():
    summary = summarise(ROWS)
    assert set(summary) == {"dice", "hd95"}
    assert summary["dice"] == {"mean": pytest.approx(0.7), "std": pytest.approx(0.2), "n": 3}
    assert summary["hd95"] == {"mean": 2.0, "std": None, "n": 1}
    assert summarise([{"hd95": math.nan}])["hd95"] == {"mean": None, "std": None, "n": 0}


def test_written_files(tmp_path):
    returned = write_metrics(tmp_path / "out", ROWS, {"fold": 0, "folds": 5}, 7, seconds=np.float32(1.5))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.csv", "summary.json"]
    with open(tmp_path / "out/metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[1] == {"case": "b", "dice": "0.7", "hd95": ""}
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["metrics"]["dice"]["n"] == 3
    assert (summary["cases"], summary["split"], summary["seed"], summary["seconds"]) == (3, {"fold": 0, "folds": 5}, 7, 1.5)
    assert summary["versions"]["torch"] == torch.__version__
    assert set(summary["versions"]) == {"torch", "monai", "numpy", "python"}
    assert summary["threads"] == torch.get_num_threads()
    assert returned["metrics"] == summary["metrics"]


def test_nothing_to_write(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        write_metrics(tmp_path, [], "test", 0)
    assert list(tmp_path.iterdir()) == []


def test_average_over_seeds_and_labelled_cases():
    rows = [
        {"method": "joint", "case": case, "seed": seed, "label": label, "dice": value}
        for case, seed, label, value in [("a", 0, "x", 0.2), ("a", 1, "x", 0.4), ("a", 0, "y", math.nan), ("b", 0, "x", 1.0)]
    ]
    assert average_over(rows, ["seed", "label"]) == [
        {"method": "joint", "case": "a", "dice": pytest.approx(0.3)},
        {"method": "joint", "case": "b", "dice": 1.0},
    ]


def test_average_over_an_unknown_column():
    with pytest.raises(ValueError, match="no column 'sede'"):
        average_over(ROWS, ["sede"])


def test_paired_test_by_hand():
    # all eight differences positive: the two-sided exact p is 2 / 2^8
    b = np.linspace(0.5, 0.7, 8)
    result = paired_test(b + np.arange(1, 9) / 100, b)
    assert result["n"] == 8
    assert result["mean_difference"] == pytest.approx(0.045)
    assert result["median_difference"] == pytest.approx(0.045)
    assert result["p_value"] == pytest.approx(2 / 256)
    assert 0.02 < result["ci95_low"] < 0.045 < result["ci95_high"] < 0.07
    assert result == paired_test(b + np.arange(1, 9) / 100, b)


def test_paired_test_of_equal_values_and_of_nan():
    assert paired_test([1.0, 2.0], [1.0, 2.0])["p_value"] == 1
    assert paired_test([1.0, math.nan, 3.0], [0.0, 0.0, math.nan])["n"] == 1


def test_paired_values_must_be_pairs():
    with pytest.raises(ValueError, match="differ in number"):
        paired_test([1.0], [1.0, 2.0])


def test_paired_test_needs_a_pair():
    with pytest.raises(ValueError, match="no pair"):
        paired_test([math.nan], [1.0])
