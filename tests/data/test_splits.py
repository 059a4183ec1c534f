from __future__ import annotations

import dataclasses
import json
import unicodedata

import pytest

from tools.data.checks import DataError
from tools.data.decathlon import read_dataset
from tools.data.splits import (
    apply_split,
    case_groups,
    domain_patients,
    evaluation_cases,
    evaluation_cases_of_model,
    make_splits,
    read_domain_splits,
    read_split,
    report_pairs,
    report_split,
    select,
    select_domains,
    write_split,
)


@pytest.fixture
def dataset(tiny_dataset):
    return read_dataset(tiny_dataset)


def with_labels(dataset, count):
    cases = tuple(case if k < count else dataclasses.replace(case, label=None) for k, case in enumerate(dataset.cases))
    return dataclasses.replace(dataset, cases=cases)


def names(cases):
    return [case.name for case in cases]


def test_report_split_is_the_documented_one():
    # SHA-256 of "0:report:<name>" orders the names: written down so that no change of code moves the split.
    train, report = report_split([f"case_{k}" for k in (3, 1, 0, 2, 4)], report=2, seed=0)
    assert (train, report) == (["case_0", "case_3", "case_4"], ["case_1", "case_2"])


def test_report_split_of_all_cases():
    with pytest.raises(DataError, match="too few cases: 3, of which 3"):
        report_split(["a", "b", "c"], report=3)


@pytest.mark.parametrize(
    ("n", "pairs"), [(2, [(0, 1), (1, 0)]), (3, [(0, 1), (1, 2), (2, 0)]), (5, [(0, 3), (1, 0), (2, 2), (3, 4), (4, 1)])]
)
def test_report_pairs(n, pairs):
    assert report_pairs(n) == [pair for pair in pairs if pair[0] != pair[1]]


@pytest.mark.parametrize("n", [7, 14, 35, 91])
def test_every_report_case_is_fixed_once_whatever_their_number(n):
    assert sorted(fixed for _, fixed in report_pairs(n)) == list(range(n))
    assert report_pairs(7)[:2] == [(0, 6), (1, 0)]


def test_cases_without_a_label_are_not_held_out(dataset):
    labelled = with_labels(dataset, 3)
    split = select(labelled, folds=1, holdout=2)
    assert len(split.report) == 2
    assert all(case.label is not None for case in split.report)
    assert len(split.labelled) == 1
    assert len(split.train) == 4


def test_too_few_labels_to_hold_out(dataset):
    with pytest.raises(DataError, match="too few cases: 3, of which 3 cannot be held out"):
        select(with_labels(dataset, 3), folds=1, holdout=3)


def test_without_any_label_any_case_is_held_out(dataset):
    assert len(select(with_labels(dataset, 0), folds=1, holdout=2).report) == 2


def test_report_pairs_of_forty_are_complete():
    assert len(report_pairs(40)) == 40
    assert report_pairs(40)[10] == (10, 3)


def test_folds_divide_the_labelled_cases(dataset):
    divisions = make_splits(dataset, folds=3)["divisions"]
    assert sorted(name for d in divisions for name in d["validation"]) == names(dataset.cases)
    for d in divisions:
        assert sorted(d["train"] + d["validation"]) == names(dataset.cases)
        assert len(d["validation"]) == 2
        assert not d["validation_in_training"]


def test_seed_changes_the_division(dataset):
    assert make_splits(dataset, 3, 0) == make_splits(dataset, "3", "0") != make_splits(dataset, 3, 1)


def test_unlabelled_cases_train_in_every_fold(dataset):
    some = with_labels(dataset, 3)
    for fold in range(3):
        split = select(some, folds=5, fold=fold)
        assert {"case_03", "case_04", "case_05"} < set(names(split.train))
        assert len(split.validation) == 1
        assert split.validation[0].label is not None
        assert len(split.labelled) == 2


@pytest.mark.parametrize("arguments", [{"fold": "all"}, {"folds": "all"}, {"folds": "1"}, {"folds": 1, "fold": 4}])
def test_training_on_everything_watches_training_cases(dataset, arguments):
    split = select(dataset, **arguments, label_limit=2)
    assert names(split.train) == names(dataset.cases)
    assert split.record["validation_in_training"]
    assert names(split.validation) == split.record["labelled"] == names(split.labelled)
    assert len(split.labelled) == 2


def test_single_labelled_case_stays_in_training(dataset):
    split = select(with_labels(dataset, 1), fold=3)
    assert names(split.labelled) == names(split.validation) == ["case_00"]


def test_without_labels(dataset):
    split = select(with_labels(dataset, 0), folds=3)
    assert len(split.validation) == 2
    assert len(split.train) == 4
    assert split.labelled == ()


@pytest.mark.parametrize("limit", [None, 0, "all", "0"])
def test_no_label_limit(dataset, limit):
    split = select(dataset, folds=3, label_limit=limit)
    assert len(split.labelled) == 4
    assert split.record["label_limit"] == "all"


def test_label_limits_are_nested_and_seeded(dataset):
    chosen = {
        (n, seed): set(select(dataset, fold="all", label_limit=n, label_seed=seed).record["labelled"])
        for n in (1, 2, 5)
        for seed in range(6)
    }
    for seed in range(6):
        assert len(chosen[5, seed]) == 5
        assert chosen[1, seed] < chosen[2, seed] < chosen[5, seed]
    assert len({frozenset(chosen[1, seed]) for seed in range(6)}) > 1


def test_holdout_is_in_no_list(dataset):
    split = select(dataset, folds=2, holdout="2")
    assert names(split.report) == report_split(names(dataset.cases), 2, 0)[1]
    assert not set(names(split.report)) & set(names(split.train) + names(split.validation))


def test_groups_stay_together(dataset):
    cases = tuple(dataclasses.replace(case, name=f"patient{k // 2}_frame{k % 2}") for k, case in enumerate(dataset.cases))
    grouped = dataclasses.replace(dataset, cases=cases)
    for fold in range(3):
        split = select(grouped, folds=3, fold=fold, group_pattern=r"patient\d+")
        assert len({name.split("_")[0] for name in names(split.validation)}) == 1
        assert len(split.validation) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_limit": 6, "folds": 3}, "label_limit is 6, but only 4"),
        ({"label_limit": "some"}, "label_limit must be an integer, not 'some'"),
        ({"label_limit": -1}, "label_limit must be at least 0"),
        ({"fold": 3, "folds": 3}, r"fold 3 does not exist, there are 3"),
        ({"fold": -1}, "fold must be at least 0"),
        ({"folds": 2.5}, "folds must be an integer"),
        ({"split_seed": True}, "split_seed must be an integer"),
        ({"holdout": 6}, "too few cases"),
        ({"group_pattern": "x"}, "does not match"),
    ],
)
def test_invalid_arguments(dataset, arguments, message):
    with pytest.raises(DataError, match=message):
        select(dataset, **arguments)


def test_written_split_is_read_back(dataset, tmp_path):
    split = select(dataset, folds=3, fold=1, label_limit=2, holdout=1)
    write_split(tmp_path / "splits.json", split)
    for limit in (None, "all", 2):
        assert select(dataset, splits_file=tmp_path / "splits.json", label_limit=limit) == split


def test_evaluating_where_nothing_was_held_out_is_said(dataset, caplog):
    cases, _ = evaluation_cases(dataset, select(dataset, fold="all").record)
    assert f"nothing was held out, so the {len(cases)} cases evaluated on are training cases" in caplog.text
    caplog.clear()
    evaluation_cases(dataset, select(dataset, fold="all", holdout=1).record)
    assert not caplog.text


def test_a_written_split_and_another_limit(dataset, tmp_path):
    write_split(tmp_path / "splits.json", select(dataset, label_limit=2))
    with pytest.raises(DataError, match=r"splits\.json: says which labels are used \(\"labelled\"\); leave --label_limit away"):
        select(dataset, splits_file=tmp_path / "splits.json", label_limit=3)


def test_own_split_with_names_only(dataset, tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"train": ["case_01", "case_02", "case_03"], "validation": ["case_00"]}))
    split = select(dataset, splits_file=path, label_limit=2)
    assert names(split.validation) == ["case_00"]
    assert len(split.labelled) == 2
    assert len(split.train) == 3


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"train": ["case_1"], "validation": []}, r"train case case_1 is not in .*did you mean case_01\?"),
        ({"train": ["case_01"], "validation": [], "report": ["case_01"]}, "both a train and a report case"),
        ({"train": ["case_01"], "validation": [], "labelled": ["case_02"]}, "not a training case"),
    ],
)
def test_split_that_does_not_fit(dataset, record, message):
    with pytest.raises(DataError, match=message):
        apply_split(dataset, record)


def test_only_some_validation_cases_with_a_label(dataset):
    with pytest.raises(DataError, match=r"validation case case_05 has no label in the data set, unlike others"):
        apply_split(with_labels(dataset, 5), {"train": ["case_01"], "validation": ["case_00", "case_05"]})


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "missing"), ("{", "JSON"), ("[]", "train"), ('{"train": [], "validation": []}', "empty"), ('{"train": "x"}', "train")],
)
def test_unreadable_split(tmp_path, text, message):
    if text is not None:
        (tmp_path / "splits.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_split(tmp_path / "splits.json")


def domain_of(dataset, patients, frames=("_frame01", "_frame13"), **fields):
    """A data set of some frames of each patient; only names and labels count."""
    names = [f"p{k:02d}{frame}" for k in range(patients) for frame in frames]
    return dataclasses.replace(dataset, cases=tuple(dataclasses.replace(dataset.cases[0], name=name) for name in names), **fields)


@pytest.fixture
def domains(dataset):
    return {"few": domain_of(dataset, 8, frames=("",)), "heart": domain_of(dataset, 20)}


def patients(case_names):
    return {name.split("_")[0] for name in case_names}


def test_frames_of_a_patient_stay_on_one_side(domains):
    validated = {"few": [], "heart": []}
    for fold in range(5):
        for name, split in select_domains(domains, folds=5, fold=fold, holdout=3).items():
            lists = [patients(names(cases)) for cases in (split.train, split.validation, split.report)]
            assert sum(map(len, lists)) == len(set.union(*lists)) == len(patients(names(domains[name].cases)))
            assert len(lists[2]) == 3
            validated[name] += lists[1]
    assert {name: (len(found), len(set(found))) for name, found in validated.items()} == {"few": (5, 5), "heart": (17, 17)}


def test_scarce_labels_count_patients_and_rotate(domains):
    used = {"few": [], "heart": []}
    for fold in range(5):
        for name, split in select_domains(domains, folds=5, fold=fold, label_limit="4").items():
            chosen = patients(split.record["labelled"])
            assert len(chosen) == 4
            assert not chosen & patients(names(split.validation))
            assert len(split.labelled) == 4 * (2 if name == "heart" else 1)
            used[name] += chosen
    assert len(set(used["few"])) == 8
    # 20 places for 20 patients; where one is held out, the next in the circle takes its place
    assert len(set(used["heart"])) >= 16


def test_rotated_label_limits_are_nested(domains):
    heart = {"heart": domains["heart"]}
    chosen = [set(select_domains(heart, folds=5, fold=3, label_limit=limit)["heart"].record["labelled"]) for limit in (1, 4, 10)]
    assert chosen[0] < chosen[1] < chosen[2]


def test_a_label_limit_of_one_domain(domains):
    limited = select_domains(domains, folds=5, fold=1, label_limit={"heart": 3})
    everything = select_domains(domains, folds=5, fold=1, label_limit="all")
    alike = select_domains(domains, folds=5, fold=1, label_limit=3)
    assert limited["heart"] == alike["heart"]
    assert len(patients(limited["heart"].record["labelled"])) == 3
    assert limited["few"] == everything["few"]


def test_label_limits_by_domain_count_in_a_split_that_is_followed(domains, tmp_path):
    split = select_domains(domains, folds=5)
    records = {name: {"train": names(value.train), "validation": names(value.validation)} for name, value in split.items()}
    (tmp_path / "splits.json").write_text(json.dumps({"domains": records}))
    followed = select_domains(domains, splits_file=tmp_path / "splits.json", label_limit={"few": "2"})
    assert len(followed["few"].labelled) == 2
    assert names(followed["heart"].labelled) == names(split["heart"].train)


def test_a_label_limit_finds_a_decomposed_name(domains):
    mac = unicodedata.normalize("NFD", "Hüfte")
    split = select_domains({"Hüfte": domains["few"]}, folds=2, label_limit={mac: 2})
    assert len(split["Hüfte"].labelled) == 2


def test_rule_of_the_data_set_goes_before_frames_and_the_option_before_both(dataset):
    heart = domain_of(dataset, 4, group_by=r"p\d")
    split = select_domains({"heart": heart}, folds=2)["heart"]
    assert split.record["group_pattern"] == r"p\d"
    assert split.record["validation_in_training"]  # all of one group
    assert select_domains({"heart": heart}, folds=2, group_by=r"p\d\d")["heart"].record["folds"] == 2


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(None, {"p00_frame01": "7"}), ("p..", {"p00_frame01": "7", "p00_frame13": "heart: p00", "p01_frame01": "heart: p01"})],
)
def test_a_patient_of_the_data_set_has_one_name_in_all_domains(dataset, pattern, expected):
    heart = domain_of(dataset, 2)
    first, *others = heart.cases[:3]
    heart = dataclasses.replace(heart, cases=(dataclasses.replace(first, patient="7"), *others))
    assert domain_patients("heart", heart, pattern) == expected


def test_patients_that_a_description_names_stay_together(dataset):
    cases = [dataclasses.replace(case, patient=str(k // 2)) for k, case in enumerate(dataset.cases)]
    named = dataclasses.replace(dataset, cases=tuple(cases))
    patient = {case.name: case.patient for case in cases}
    for fold in range(2):
        split = select(named, folds=2, fold=fold, holdout=1, label_limit=1)
        parts = [{patient[case.name] for case in part} for part in (split.train, split.validation, split.report)]
        assert sum(map(len, parts)) == len(set().union(*parts)) == len(set(patient.values()))
        assert len(parts[2]) == 1
        assert len({patient[case.name] for case in split.labelled}) == 1


def of_patients(dataset, prefix, numbers):
    """A domain of one case of each of the patients."""
    cases = (dataclasses.replace(dataset.cases[0], name=f"{prefix}{k}", patient=str(k)) for k in numbers)
    return dataclasses.replace(dataset, cases=tuple(cases))


@pytest.mark.parametrize(("holdout", "fold"), [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), ("1", "all")])
def test_a_patient_of_several_domains_is_on_one_side_in_all(dataset, holdout, fold):
    domains = {"t1": of_patients(dataset, "a", range(1, 7)), "t2": of_patients(dataset, "b", range(4, 10))}
    splits = select_domains(domains, folds=3, fold=fold, holdout=holdout)
    sides = {
        side: {case.patient for split in splits.values() for case in getattr(split, side)} for side in ("train", "validation", "report")
    }
    assert not sides["train"] & sides["report"]
    assert not sides["validation"] & sides["report"]
    assert bool(sides["train"] & sides["validation"]) is (fold == "all")
    assert len(sides["report"]) == int(holdout)
    for split in splits.values():
        assert split.train
        assert split.validation
        assert split.record["validation_in_training"] is (fold == "all")


@pytest.mark.parametrize("seed", range(5))
def test_shared_patients_of_each_domain_are_spread_over_the_folds(dataset, seed):
    """A few of the many of t1 are in t2 or t3 as well."""
    domains = {"t1": range(40), "t2": [*range(5), *range(40, 45)], "t3": range(4, 9)}
    made = {name: of_patients(dataset, name, numbers) for name, numbers in domains.items()}
    validated = {name: [] for name in domains}
    for fold in range(5):
        for name, split in select_domains(made, folds=5, fold=fold, split_seed=seed).items():
            validated[name].append({case.patient for case in split.validation})
    for name, numbers in domains.items():
        assert sorted(map(len, validated[name])) == [len(numbers) // 5] * 5
        assert set().union(*validated[name]) == {str(k) for k in numbers}


def test_folds_of_shared_patients_depend_on_no_order(dataset):
    numbers = {"t1": range(12), "t2": range(8, 14)}
    domains = {name: of_patients(dataset, name, numbers[name]) for name in ("t1", "t2")}
    turned = {name: of_patients(dataset, name, reversed(numbers[name])) for name in ("t2", "t1")}
    first, second = (select_domains(made, folds=3, fold=1) for made in (domains, turned))
    assert {name: split.record for name, split in first.items()} == {name: split.record for name, split in second.items()}


def test_a_domain_of_fewer_shared_patients_than_folds(dataset):
    domains = {"t1": of_patients(dataset, "a", range(9)), "t2": of_patients(dataset, "b", [0, 1])}
    splits = [select_domains(domains, folds=3, fold=fold)["t2"] for fold in range(2)]
    assert {name for split in splits for name in names(split.validation)} == {"b0", "b1"}
    with pytest.raises(DataError, match="fold 2 has no validation patient of the domain 't2', which has 2: take fewer --folds, or"):
        select_domains(domains, folds=3, fold=2)


def test_a_domain_of_one_shared_patient(dataset):
    domains = {"t1": of_patients(dataset, "a", range(9)), "t2": of_patients(dataset, "b", [0])}
    with pytest.raises(DataError, match="fold 0 has no training patient of the domain 't2', which has 1"):
        select_domains(domains, folds=3, fold=0)
    assert select_domains(domains, fold="all")["t2"].record["validation_in_training"]


def test_all_shared_patients_of_a_domain_are_held_out(dataset):
    domains = {"t1": of_patients(dataset, "a", range(9)), "t2": of_patients(dataset, "b", [0])}
    with pytest.raises(DataError, match="no case of the domain 't2' is left, all are held out for the report"):
        select_domains(domains, holdout=8)


def test_a_patients_number_is_no_other_cases_name(dataset):
    first, second, *others = dataset.cases
    cases = (dataclasses.replace(first, patient=second.name), second, *others)
    groups = case_groups(dataclasses.replace(dataset, cases=cases), None)
    assert len(set(groups.values())) == len(cases)


def test_group_by_of_a_description_counts_for_a_single_data_set(dataset):
    split = select(domain_of(dataset, 6, group_by=r"p\d+"), folds=3)
    assert len(patients(names(split.validation))) == 2
    assert len(split.validation) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_limit": 7}, "label_limit is 7, but only 6 training groups"),
        ({"label_limit": {"few": 7}}, "label_limit is 7, but only 6 training groups"),
        ({"label_limit": {"hart": 3}}, "unknown domain in label_limit: 'hart', the nearest is 'heart'"),
        ({"label_limit": {"heart": "some"}}, "label_limit must be an integer, not 'some'"),
        ({"group_by": "("}, "is not a regular expression"),
        ({"group_by": "x"}, "does not match the case name p00"),
    ],
)
def test_invalid_domain_options(domains, options, message):
    with pytest.raises(DataError, match=message):
        select_domains(domains, folds=5, **options)


def written(path, splits):
    """``splits.json`` of several domains, as a run over them writes it."""
    path.write_text(json.dumps({"domains": {name: split.record for name, split in splits.items()}}))


def test_written_domain_splits_are_read_back(domains, tmp_path):
    splits = select_domains(domains, folds=5, fold=2, label_limit=4)
    written(tmp_path / "splits.json", splits)
    assert select_domains(domains, splits_file=tmp_path / "splits.json") == splits
    assert read_domain_splits(tmp_path / "splits.json") == {name: split.record for name, split in splits.items()}


def test_written_domain_splits_without_the_domain(domains, tmp_path):
    written(tmp_path / "splits.json", select_domains(domains))
    with pytest.raises(DataError, match="no split for the domain 'foot', there are"):
        select_domains({"foot": domains["few"]}, splits_file=tmp_path / "splits.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"train": []}', '"domains" must map'), ('{"domains": {"a": {"train": [], "validation": []}}}', "domain 'a': \"train\" is empty")],
)
def test_unreadable_domain_splits(tmp_path, text, message):
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_domain_splits(tmp_path / "splits.json")


@pytest.mark.parametrize(("report", "validation", "expected"), [(["case_04", "case_01"], [], [1, 4]), ([], ["case_05"], [5])])
def test_cases_to_evaluate_a_model_on(tiny_dataset, report, validation, expected):
    others = [f"case_{k:02d}" for k in range(6) if f"case_{k:02d}" not in (*report, *validation)]
    record = {"train": others, "labelled": others, "validation": validation, "report": report, "holdout": len(report)}
    cases, split = evaluation_cases(read_dataset(tiny_dataset), record)
    assert [case.name for case in cases] == [f"case_{k:02d}" for k in expected]
    assert split == {"validation": validation, "report": report, "holdout": len(report)}


@pytest.mark.parametrize("record", [None, {"train": ["another"], "labelled": ["another"], "validation": [], "report": ["case_00"]}])
def test_data_that_are_new_to_a_model_count_whole(tiny_dataset, record):
    cases, split = evaluation_cases(read_dataset(tiny_dataset), record)
    assert len(cases) == 6
    assert split == "all labelled cases of blobs"


def test_only_those_held_out_count_where_names_are_those_of_the_training(tiny_dataset, caplog):
    names = [f"case_{k:02d}" for k in range(6)]
    record = {"dataset": "elsewhere", "train": names[:4], "labelled": names[:4], "validation": [], "report": names[4:]}
    assert len(evaluation_cases(read_dataset(tiny_dataset), record)[0]) == 2
    assert "of elsewhere: evaluated on those held out, 2 of 6; --evaluate_on all" in caplog.text
    caplog.clear()
    evaluation_cases(read_dataset(tiny_dataset), {**record, "dataset": "blobs"})
    assert not caplog.text


@pytest.mark.parametrize(("name", "count"), [("blobs", 4), ("others", 6)])
def test_training_cases_are_never_evaluated_on(tiny_dataset, name, count):
    """Of two training cases and one that has gone since; in a data set of another name the names mean nothing."""
    trained = ["case_01", "case_03", "gone"]
    record = {"dataset": name, "train": trained, "labelled": trained, "validation": ["case_00"], "report": []}
    cases, split = evaluation_cases(read_dataset(tiny_dataset), record)
    assert len(cases) == count
    assert ("not trained on" in split) is (name == "blobs")
    assert not {case.name for case in cases} & set(trained) or name == "others"


@pytest.mark.parametrize(("labelled", "expected"), [(["case_02"], [0, 1, 3, 4, 5]), (["case_01", "case_02", "gone"], [0, 3, 4, 5])])
def test_cases_whose_label_was_not_learnt_from(tiny_dataset, labelled, expected):
    record = {"train": ["case_00", "case_01", "case_02", *labelled], "labelled": labelled, "validation": ["case_03"], "report": ["case_04"]}
    cases, split = evaluation_cases(read_dataset(tiny_dataset), {"dataset": "blobs", **record}, evaluate_on="unlabelled")
    assert [case.name for case in cases] == [f"case_{k:02d}" for k in expected]
    assert split == "labelled cases of blobs whose label the model did not learn from"


def test_all_cases_of_a_data_set_whose_names_coincide(tiny_dataset):
    names = [f"case_{k:02d}" for k in range(6)]
    record = {"dataset": "blobs", "train": names[:5], "labelled": names[:5], "validation": names[5:], "report": []}
    cases, split = evaluation_cases(read_dataset(tiny_dataset), record, evaluate_on="all")
    assert [case.name for case in cases] == names
    assert split == "all labelled cases of blobs"


def test_what_cannot_be_evaluated_on(tiny_dataset):
    with pytest.raises(DataError, match="evaluate_on must be one of .*, not 'some'"):
        evaluation_cases(read_dataset(tiny_dataset), None, evaluate_on="some")


def test_nothing_to_evaluate_on(tiny_dataset):
    content = json.loads((tiny_dataset / "dataset.json").read_text())
    content["training"] = [{"image": entry["image"]} for entry in content["training"]]
    (tiny_dataset / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="no labelled case to evaluate on"):
        evaluation_cases(read_dataset(tiny_dataset), None)


def test_cases_to_evaluate_a_model_on_by_its_folder(dataset, tmp_path):
    assert len(evaluation_cases_of_model(dataset, tmp_path)[0]) == len(dataset.cases)
    split = select(dataset, folds=2)
    write_split(tmp_path / "splits.json", split)
    assert names(evaluation_cases_of_model(dataset, tmp_path)[0]) == names(split.validation)
