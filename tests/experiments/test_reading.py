from __future__ import annotations

import pytest

from tools.data.checks import DataError
from tools.data.files import write_json
from tools.experiments.definition import Metric
from tools.experiments.reading import find_definition, read_definition

CONTENT = {
    "overrides": {"holdout": 2},
    "runs": {
        "alone": {"repeat": {"domains": ["knee", "ankle"], "fold": [0, 1]}, "evaluating": ["domains", "holdout"]},
        "joint": {"repeat": {"seed": [0, 1], "fold": [0, 1]}, "optional": {"seed": [1]}, "overrides": {"epochs": 3}},
        "some": {"repeat": {"fold": [0, 1]}, "evaluations": {"network": True, "maps": {"fold": [0]}}},
    },
    "evaluations": {"network": {}, "maps": {"embeddings": True}},
    "metrics": {"dice": {"title": "Dice"}},
    "rows": {
        "alone": {"of": ["alone_{domain}_*/network"], "domains": ["knee", "ankle"]},
        "joint": {"of": ["joint_*/network"], "domains": ["knee", "ankle"]},
        "joint on knees": {"of": ["joint_seed0_fold0/network"], "domain": "knee"},
    },
    "structures": {"rows": ["joint", "alone"], "metrics": {"dice": {"title": "Dice"}, "hd": {"title": "distance", "decimals": 1}}},
    "comparisons": {"knee": {"a": "joint, knee", "b": "alone, knee", "metric": "dice"}},
    "confusions": {"found": {"of": ["joint_*/network"], "truth": "domain", "answer": "auto", "alike": [["knee", "ankle"]]}},
    "projections": {"Some, or all": {"of": {"some": "some_fold0/maps", "joint": "joint_seed0_fold1/maps"}}},
    "requirements": {"found": {"confusion": "found", "at_least": 0.9}, "gain": {"comparison": "knee", "above": 0}},
    "group_by": "^p\\d+",
    "quick_runs": "joint_*",
}


@pytest.fixture
def read(tmp_path):
    """Reads the definition CONTENT with changes."""

    def read(**changes):
        write_json(tmp_path / "tiny.json", {**CONTENT, **changes})
        return read_definition(tmp_path / "tiny.json")

    return read


def test_repeated_runs(read):
    runs = read().runs
    assert [*runs] == [f"alone_{domain}_fold{k}" for domain in ("knee", "ankle") for k in (0, 1)] + [
        f"joint_seed{seed}_fold{k}" for seed in (0, 1) for k in (0, 1)
    ] + ["some_fold0", "some_fold1"]
    assert runs["joint_seed1_fold0"].overrides == {"epochs": 3, "seed": 1, "fold": 0}
    assert [name for name, run in runs.items() if run.optional] == ["joint_seed1_fold0", "joint_seed1_fold1"]
    assert runs["alone_knee_fold0"].evaluating == ("domains", "holdout")


def test_metrics_by_pattern(read):
    metrics = {name: {"title": name} for name in ("tre", "dice_mean", "seconds", "dice_bone")}
    row = {"of": ["joint_*/network"], "metrics": ["seconds", "dice_*", "dice_bone"]}
    structures = {"rows": ["r"], "metrics": {"dice": {"title": "Dice"}}}
    rows = read(metrics=metrics, rows={"r": row}, structures=structures, comparisons={}, requirements={}).rows
    assert rows["r"].metrics == ("seconds", "dice_mean", "dice_bone")


def test_rows_by_pattern_and_domain(read):
    rows = read().rows
    assert [*rows] == ["alone", "joint", "joint on knees", "alone, knee", "joint, knee", "alone, ankle", "joint, ankle"]
    assert len(rows["alone"].of) == 4
    assert rows["alone"].domain is None
    assert rows["alone, ankle"].of == (("alone_ankle_fold0", "network"), ("alone_ankle_fold1", "network"))
    assert rows["alone, ankle"].domain == "ankle"
    assert len(rows["joint, knee"].of) == 4
    assert rows["joint on knees"].domain == "knee"


def test_other_parts(read):
    definition = read()
    assert definition.group_by == "^p\\d+"
    assert definition.quick_runs == "joint_*"
    assert definition.confusions["found"].alike == (("knee", "ankle"),)
    assert definition.requirements["gain"].reached(0.1)
    assert not definition.requirements["gain"].reached(0)
    assert definition.projections["Some, or all"].of == {"some": ("some_fold0", "maps"), "joint": ("joint_seed0_fold1", "maps")}
    assert definition.projections["Some, or all"].picture == "some_or_all.png"
    assert definition.structures.rows == ("joint", "alone")
    assert definition.structures.metrics["hd"] == Metric("distance", 1)


def test_evaluations_of_some_repetitions(read):
    runs = read().runs
    assert runs["some_fold0"].evaluations == ("network", "maps")
    assert runs["some_fold1"].evaluations == ("network",)
    assert runs["joint_seed0_fold0"].evaluations == ("network", "maps")


@pytest.mark.parametrize("of", ["one_{domain}_*/network", "one_*{domain}_*/network"])
def test_a_domain_whose_name_is_part_of_anothers(read, of):
    run = {"repeat": {"domains": ["knee", "knee_left", "left_knee"], "seed": [0, 1]}, "evaluations": ["network"]}
    rows = {"r": {"of": [of], "domains": ["knee", "knee_left"]}}
    found = read(runs={**CONTENT["runs"], "one": run}, rows={**CONTENT["rows"], **rows}).rows
    for domain in ("knee", "knee_left"):
        assert found[f"r, {domain}"].of == tuple((f"one_{domain}_seed{seed}", "network") for seed in (0, 1))
    assert len(found["r"].of) == 6


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("rows", {"r": {"of": ["jiont_*/network"]}}, "row 'r' has 'jiont_*/network', which names no run"),
        ("rows", {"r": {"of": ["joint_*/network"], "metrics": ["hd95_*"]}}, "row 'r' has 'hd95_*', which names no metric; known: dice"),
        ("rows", {"r": {"of": ["joint_*/netwrk"]}}, "unknown evaluation 'netwrk'"),
        ("rows", {"r": {"of": ["joint_*/network"], "domain": "knee", "domains": ["knee"]}}, "is about one domain already"),
        ("rows", {**CONTENT["rows"], "alone, knee": {"of": ["joint_*/network"]}}, "two rows are named 'alone, knee'"),
        ("runs", {**CONTENT["runs"], "alone_knee_fold0": {}}, "two runs are named 'alone_knee_fold0'"),
        ("runs", {**CONTENT["runs"], "x": {"repeat": {"fold": 3}}}, "run 'x': repeat must map 'fold' to a list"),
        ("runs", {**CONTENT["runs"], "x": {"repeat": {"model_dir": ["a"]}}}, "must not set 'model_dir'"),
        ("runs", {**CONTENT["runs"], "x": {"optional": {"seed": [1]}}}, "optional must map keys of repeat"),
        ("runs", {**CONTENT["runs"], "x": {"evaluating": ["domain"]}}, "unknown override 'domain'"),
        ("runs", {**CONTENT["runs"], "x": {"evaluations": {"netwrk": True}}}, "run 'x' has an unknown evaluation 'netwrk'"),
        ("runs", {**CONTENT["runs"], "x": {"evaluations": {"maps": [0]}}}, "must map the evaluation 'maps' to true or to an object"),
        ("runs", {**CONTENT["runs"], "x": {"evaluations": {"maps": {"fold": [0]}}}}, "the evaluation 'maps' must map keys of repeat"),
        ("projections", {"p": {"of": {"a": "some_fold1/maps"}}}, "unknown evaluation 'maps'"),
        ("projections", {"p": {"of": {"a": "joint_*/maps"}}}, "'joint_*/maps', which names 4 runs; name one"),
        ("projections", {"p": {"of": {"a": "some_fold0/network"}}}, "sets 'embeddings' to true, 'network' does not"),
        ("projections", {"p": {"of": {}}}, "at least one entry of 'of'"),
        ("projections", {"?": {"of": {"a": "some_fold0/maps"}}}, "needs a name with letters or digits"),
        ("projections", {"figure": {"of": {"a": "some_fold0/maps"}}}, "figure.png, which is that of the table"),
        (
            "projections",
            {"a b": {"of": {"a": "some_fold0/maps"}}, "A-B": {"of": {"a": "some_fold0/maps"}}},
            "'A-B' would be drawn as a_b.png, which is that of 'a b'",
        ),
        ("structures", {"rows": ["jiont"], "metrics": {}}, "structures has an unknown row 'jiont'; did you mean 'joint'"),
        ("structures", {"metrics": {"dice": {"title": "Dice"}}}, "structures lacks 'rows'"),
        ("structures", {"rows": ["joint"], "metrics": {}}, "structures needs at least one entry of 'rows' and of 'metrics'"),
        ("structures", {"rows": ["joint"], "metrics": {"dice": {}}}, "structures, metric 'dice' lacks 'title'"),
        ("group_by", "(", "group_by '(' is not a regular expression"),
        ("confusions", {"c": {"of": ["joint_*/network"], "truth": "domain"}}, "lacks 'answer'"),
        ("requirements", {"q": {"confusion": "fuond", "at_least": 1}}, "unknown confusion 'fuond'; did you mean 'found'"),
        ("requirements", {"q": {"confusion": "found", "row": "joint", "at_least": 1}}, "is on a row and on a confusion"),
        ("requirements", {"q": {"confusion": "found", "metric": "dice", "at_least": 1}}, "needs a row and a metric"),
        (
            "requirements",
            {"q": {"comparison": "knee", "statistic": "p_value", "below": 0.01}},
            "needs a 'sign' if its statistic is 'p_value'",
        ),
        ("requirements", {"q": {"comparison": "knee", "sign": "positive", "above": 0}}, "needs a 'sign' if"),
        (
            "requirements",
            {"q": {"comparison": "knee", "statistic": "p_value", "sign": "positiv", "below": 0.01}},
            "unknown sign 'positiv'; did you mean 'positive'",
        ),
    ],
)
def test_a_faulty_definition_is_refused(read, part, value, message):
    with pytest.raises(DataError) as caught:
        read(**{part: value})
    assert message in str(caught.value)


@pytest.fixture
def bundle(tmp_path):
    """A bundle with an overlay and two definitions, none of which is the default."""
    folder = tmp_path / "configs" / "experiments"
    write_json(folder / "overlay.json", {"epochs": 3})
    write_json(folder / "many.json", {"runs": {}})
    write_json(folder / "few.json", {"runs": {}})
    return tmp_path


def test_a_definition_by_name(bundle):
    folder = bundle / "configs" / "experiments"
    assert find_definition(bundle, "few") == find_definition(bundle, "few.json") == folder / "few.json"


def test_a_definition_by_path(bundle):
    assert find_definition(bundle, "elsewhere/few.json").parts == ("elsewhere", "few.json")


def test_the_definition_that_says_so_is_the_default(bundle):
    write_json(bundle / "configs" / "experiments" / "few.json", {"runs": {}, "default": True})
    assert find_definition(bundle).name == "few.json"


def test_the_only_definition_is_the_default(bundle):
    (bundle / "configs" / "experiments" / "few.json").unlink()
    assert find_definition(bundle).name == "many.json"


def test_no_default(bundle):
    with pytest.raises(DataError, match="0 definitions are the default; give --definition, one of few, many"):
        find_definition(bundle)


def test_no_definition(tmp_path):
    with pytest.raises(DataError, match="no experiment is defined"):
        find_definition(tmp_path)


@pytest.mark.parametrize(("name", "message"), [("fwe", "did you mean few"), ("overlay", "known: few, many")])
def test_an_unknown_definition(bundle, name, message):
    with pytest.raises(DataError, match=message):
        find_definition(bundle, name)
