from __future__ import annotations

import math

import pytest

from tools.data.checks import DataError
from tools.data.files import write_csv
from tools.experiments.confusion import confuse, read_rows
from tools.experiments.definition import Confusion, Requirement, Row
from tools.experiments.table import compare, judge, read_metrics, row_cases

A, B = ("a", "network"), ("b", "network")


@pytest.fixture
def files(tmp_path):
    """Results of two seeds on two domains, in which cases have the same names; one patient has two images."""
    scores = {A: (0.5, 0.7, 0.9), B: (0.7, 0.9, 0.5)}
    result = {}
    for source, (knee, first, second) in scores.items():
        result[source] = tmp_path / f"{source[0]}.csv"
        rows = [
            {"case": "p1_frame1", "domain": "knee", "dice": knee, "auto": "knee"},
            {"case": "p1_frame1", "domain": "heart", "dice": first, "auto": "heart"},
            {"case": "p1_frame2", "domain": "heart", "dice": second, "auto": "knee" if source == A else "heart"},
        ]
        write_csv(result[source], rows)
    return result


def test_metrics_are_read_with_all_columns_of_numbers(tmp_path):
    rows = [{"case": "08", "moving": "a", "dice": 0.5, "hd": None}, {"case": "09", "moving": "10", "dice": 0.25, "hd": 2}]
    write_csv(tmp_path / "a.csv", rows)
    first, second = read_metrics(tmp_path / "a.csv", ["dice", "lacking"])
    assert second["case"] == "09"
    assert [*first] == ["case", "dice", "lacking", "hd"]
    assert (first["dice"], second["dice"], second["hd"]) == (0.5, 0.25, 2.0)
    assert all(math.isnan(value) for value in (first["hd"], first["lacking"], second["lacking"]))


def test_metrics_need_the_names_of_the_cases(tmp_path):
    write_csv(tmp_path / "a.csv", [{"dice": 0.5}])
    with pytest.raises(DataError, match="a.csv: has no column 'case'"):
        read_metrics(tmp_path / "a.csv")


def test_cases_of_one_name_in_two_domains_are_two(files):
    cases = row_cases(Row((A, B), ("dice",)), files)
    assert [(case["domain"], case["case"]) for case in cases] == [("knee", "p1_frame1"), ("heart", "p1_frame1"), ("heart", "p1_frame2")]
    assert [case["dice"] for case in cases] == pytest.approx([0.6, 0.8, 0.7])


def test_images_of_a_patient_are_one_case_within_a_domain(files):
    cases = row_cases(Row((A, B), ("dice",)), files, group_by="^.+?(?=_frame|$)")
    assert cases == [
        {"domain": "knee", "case": "p1", "dice": pytest.approx(0.6)},
        {"domain": "heart", "case": "p1", "dice": pytest.approx(0.75)},
    ]


def name_patients(path, patient):
    """Write the column ``patient`` into a table."""
    rows = read_rows(path)
    write_csv(path, [row | {"patient": patient(row)} for row in rows])


def test_named_patients_change_nothing_where_names_of_cases_say_it(files):
    """The same cases, averages and statistics, whether the expression of the definition says it or, in one of the results, a column."""
    pattern, rows = "^.+?(?=_frame|$)", [Row((source,), ("dice",)) for source in (A, B)]
    by_name = [row_cases(row, files, pattern) for row in rows]
    name_patients(files[B], lambda row: f"{row['domain']}: {row['case'].split('_')[0]}")
    named = [row_cases(row, files) for row in rows]
    assert [[{**case, "patient": f"{case['domain']}: p1"} for case in cases] for cases in by_name] == named
    assert compare(*named, "dice") == compare(*by_name, "dice")


def test_named_patients_go_before_an_expression(files):
    name_patients(files[A], lambda row: row["case"])
    assert [case["case"] for case in row_cases(Row((A,), ("dice",)), files, "^p1")] == ["p1_frame1", "p1_frame1", "p1_frame2"]


def test_cases_whose_patient_is_not_named_go_by_the_expression(files):
    name_patients(files[A], lambda row: "7" if row["domain"] == "knee" else None)
    cases = row_cases(Row((A,), ("dice",)), files, "^p1")
    assert [(case["domain"], case["case"], case.get("patient")) for case in cases] == [("knee", "7", "7"), ("heart", "p1", None)]


def test_a_patient_in_two_domains_is_a_case_of_each_and_compared_once(files):
    for path in files.values():
        name_patients(path, lambda row: "7")
    a, b = (row_cases(Row((source,), ("dice",)), files) for source in (A, B))
    # knee 0.5 and heart (0.7 + 0.9) / 2; knee 0.7 and heart (0.9 + 0.5) / 2
    assert [case["dice"] for case in a] == pytest.approx([0.5, 0.8])
    found = compare(a, b, "dice")
    assert (found["n"], found["mean_a"], found["mean_b"]) == (1, pytest.approx(0.65), pytest.approx(0.7))


def test_a_patient_is_compared_in_the_domains_that_both_rows_have(files):
    for path in files.values():
        name_patients(path, lambda row: "7")
    found = compare(row_cases(Row((A,), ("dice",)), files), row_cases(Row((B,), ("dice",), domain="knee"), files), "dice")
    assert (found["n"], found["mean_difference"]) == (1, pytest.approx(-0.2))


def test_a_row_of_one_domain(files):
    assert [case["case"] for case in row_cases(Row((A,), ("dice",), domain="heart"), files)] == ["p1_frame1", "p1_frame2"]


def test_a_pattern_that_does_not_match_a_case(files):
    with pytest.raises(DataError, match="does not match the case name p1_frame1"):
        row_cases(Row((A,), ("dice",)), files, group_by="patient")


def test_compare_pairs_cases_of_one_domain(files):
    a, b = (row_cases(Row((source,), ("dice",)), files) for source in (A, B))
    found = compare(a, list(reversed(b)), "dice")
    # by hand: -0.2, -0.2, 0.4
    assert found["n"] == 3
    assert found["mean_difference"] == pytest.approx(0)
    assert found["ci95_low"] < 0 < found["ci95_high"]


def test_confusion_counts_and_share(files):
    found = confuse(Confusion((A, B), "domain", "auto"), files)
    assert found["counts"] == {"heart": {"heart": 3, "knee": 1}, "knee": {"knee": 2}}
    assert found["n"] == 6
    assert found["right"] == pytest.approx(5 / 6)
    assert judge(Requirement("above", 0.8, confusion="c"), {}, {}, {"c": found})["reached"] is True
    assert judge(Requirement("above", 0.8, confusion="c"), {}, {}, {})["reached"] is None


def test_values_that_are_alike_are_right(files):
    assert confuse(Confusion((A, B), "domain", "auto", (("knee", "heart"),)), files)["right"] == 1


def test_a_confusion_needs_its_columns(files):
    with pytest.raises(DataError, match="a.csv: has no 'answer' in a row"):
        confuse(Confusion((A,), "domain", "answer"), files)
