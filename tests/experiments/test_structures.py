from __future__ import annotations

import math

import pytest

from tools.data.files import write_csv
from tools.experiments.definition import Metric, Row, Structures
from tools.experiments.structures import csv_line, structure_table
from tools.experiments.table import row_cases

STRUCTURES = Structures(("one", "other"), {"dice": Metric("Dice"), "hd": Metric("distance", 1)})
NOT = math.nan


def case(domain, **columns):
    return {"domain": domain, "case": "x"} | columns


@pytest.fixture
def cases():
    """Two rows on two domains, of which each has NaN in the columns of the other's structures."""
    heart = {"dice_tibia": NOT, "hd_tibia": NOT, "hd95_tibia": NOT}
    knee = {"dice_left ventricle": NOT, "hd_left ventricle": NOT}
    return {
        "one": [
            case("knee", dice_tibia=0.8, hd_tibia=2.0, hd95_tibia=1.0, dice_mean=0.8, dice_union=0.7, hd_mean=2.0, **knee),
            case("knee", dice_tibia=0.6, hd_tibia=NOT, hd95_tibia=NOT, dice_mean=0.6, dice_union=0.5, hd_mean=NOT, **knee),
            case("heart", **{"dice_left ventricle": 0.9, "hd_left ventricle": 3.0}, **heart),
        ],
        "other": [case("heart", **{"dice_left ventricle": 0.0, "hd_left ventricle": NOT}, **heart), case("knee", dice_tibia=0.5)],
    }


def test_structures_of_each_domain_and_row(cases):
    lines = structure_table(STRUCTURES, cases)
    where = [("one", "knee", "tibia"), ("other", "knee", "tibia"), ("one", "heart", "left ventricle"), ("other", "heart", "left ventricle")]
    assert [(line["row"], line["domain"], line["structure"]) for line in lines] == where
    # 0.8 and 0.6: the sample's deviation is 0.2 / sqrt 2; the missed one has no distance
    assert lines[0]["metrics"] == {
        "dice": pytest.approx({"mean": 0.7, "std": 0.02**0.5, "n": 2}),
        "hd": {"mean": 2.0, "std": None, "n": 1},
    }
    assert lines[3]["metrics"] == {"dice": {"mean": 0.0, "std": None, "n": 1}, "hd": {"mean": None, "std": None, "n": 0}}


def test_rows_without_cases_and_rows_that_are_not_named_are_left_out(cases):
    lines = structure_table(STRUCTURES, {"third": cases["one"], "other": cases["other"], "one": []})
    assert {line["row"] for line in lines} == {"other"}


def test_a_data_set_without_domains():
    (line,) = structure_table(STRUCTURES, {"one": [{"case": "x", "dice_tibia": 0.5}]})
    assert line["domain"] is None
    expected = {"row": "one", "structure": "tibia", "dice": 0.5, "dice_std": None, "dice_n": 1, "hd": None, "hd_std": None, "hd_n": 0}
    assert csv_line(line) == expected


def test_a_patient_counts_once_however_many_images_and_runs_he_has(tmp_path):
    """Two folds, whose networks both segment the first patient; of the second there are two images."""
    rows = {"a": {"p1": 0.5, "p2_frame1": 0.6, "p2_frame2": 0.8}, "b": {"p1": 0.9}}
    files = {}
    for run, values in rows.items():
        files[run, "network"] = tmp_path / f"{run}.csv"
        write_csv(files[run, "network"], [{"case": name, "domain": "knee", "dice_tibia": value} for name, value in values.items()])
    cases = row_cases(Row(tuple(files), ("dice_mean",)), files, "^p[0-9]")
    (line,) = structure_table(Structures(("one",), {"dice": Metric("Dice")}), {"one": cases})
    # (0.5 + 0.9) / 2 and (0.6 + 0.8) / 2
    assert line["metrics"]["dice"] == {"mean": pytest.approx(0.7), "std": pytest.approx(0.0, abs=1e-9), "n": 2}
