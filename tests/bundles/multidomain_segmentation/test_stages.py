from __future__ import annotations

import pytest

from multidomain_segmentation.stages import Schedule, Stage
from tools.data.checks import DataError

PRIOR = {"name": "p", "share": 0.2, "network": "prior"}
NETWORK = {"name": "n", "share": 1.0}
TRANSFER = [{"name": "o", "domains": "others"}, {"name": "t", "domains": "target"}]
NAMES = ("ankle", "hip", "knee")


@pytest.mark.parametrize(
    ("stages", "prior", "total", "expected"),
    [
        ([PRIOR, NETWORK], True, 12, "ppnnnnnnnnnn"),
        ([PRIOR, NETWORK], False, 5, "nnnnn"),  # nothing to train: left out
        ([NETWORK], True, 3, "nnn"),
        ([PRIOR, NETWORK], True, 2, "nn"),  # too short a share for a step
        ([{**NETWORK, "name": "a"}, {**NETWORK, "name": "b"}], True, 5, "aabbb"),
    ],
)
def test_shares(stages, prior, total, expected):
    schedule = Schedule(stages, total, prior=prior)
    assert "".join(schedule(k).stage.name for k in range(total)) == expected
    assert schedule.count("prior") == expected.count("p")
    assert schedule.count("network") == total - expected.count("p")
    assert schedule.begin("network") == expected.count("p")
    assert schedule.last_begin("network") == expected.index(expected[-1])


def test_steps_past_the_end_are_the_last_ones():
    schedule = Schedule([PRIOR, NETWORK], 12)
    assert schedule(40) == schedule(11)


def test_every_stage_has_a_learning_rate_of_its_own():
    schedule = Schedule([PRIOR, {**NETWORK, "learning_rate": 0.5}], 120, warmup=0.1, final=0.0)
    rates = [schedule.learning_rate(schedule(k)) for k in range(120)]
    assert rates[1] == pytest.approx(0.5)
    assert rates[2] == pytest.approx(1.0)  # two of twenty steps of warm-up
    assert rates[19] < 0.02
    assert rates[30] == pytest.approx(0.5)
    assert rates[119] < 0.01


def test_unlabelled_cases_for_a_target_that_no_stage_singles_out():
    stages = [NETWORK, {**NETWORK, "learn_from": "answers"}]
    with pytest.raises(DataError, match="a target is given, but no stage .*: over transfer lay unlabelled_transfer"):
        Schedule(stages, 10, target="hip")
    assert Schedule([{**stages[0], "domains": "target"}, stages[1]], 10, target="hip").needs_unlabelled


def test_others_and_target():
    schedule = Schedule(TRANSFER, 10, target="hip")
    assert [schedule.domains(stage, NAMES) for stage in schedule.stages] == [("ankle", "knee"), ("hip",)]
    assert Schedule([NETWORK], 10).domains(Stage("n"), NAMES) == NAMES


def test_target_is_missing():
    with pytest.raises(DataError, match="the stage 'o' needs a target: give --target NAME"):
        Schedule(TRANSFER, 10)


def test_target_that_no_stage_singles_out():
    schedule = Schedule([NETWORK], 10, target="hip")
    with pytest.raises(DataError, match="--target hip, but no stage learns from it alone: lay the overlay transfer over train.json"):
        schedule.check_target(NAMES)
    schedule.check_target(["hip"])
    Schedule([NETWORK, TRANSFER[1]], 10, target="hip").check_target(NAMES)
    Schedule([NETWORK], 10).check_target(NAMES)


def test_target_is_unknown():
    schedule = Schedule(TRANSFER, 10, target="elbow")
    with pytest.raises(DataError, match="--target elbow: no such domain"):
        schedule.domains(schedule.stages[0], NAMES)


def test_no_others():
    schedule = Schedule(TRANSFER, 10, target="hip")
    with pytest.raises(DataError, match="needs other domains than 'hip'"):
        schedule.domains(schedule.stages[0], ["hip"])


@pytest.mark.parametrize(("stages", "expected"), [([PRIOR, NETWORK], False), ([NETWORK, {**NETWORK, "learn_from": "answers"}], True)])
def test_whether_unlabelled_cases_are_needed(stages, expected):
    assert Schedule(stages, 10).needs_unlabelled is expected


@pytest.mark.parametrize(
    "change",
    [
        {"share": 0},
        {"network": "nerve"},
        {"domains": "some"},
        {"learning_rate": -1},
        {"learn_from": "experience"},
        {"learn_from": "answers", "network": "prior"},
        {"slices": 0},
        {"slices": 1.5},
    ],
)
def test_a_stage_out_of_range_is_named(change):
    with pytest.raises(ValueError, match="stage 'x'"):
        Stage("x", **change)


@pytest.mark.parametrize("stages", ["network", ["network"], [{"name": "n", "shares": 1}], [{"name": "n", "share": "half"}]])
def test_what_is_no_stage(stages):
    with pytest.raises(DataError, match="stage"):
        Schedule(stages)


def test_no_stage():
    with pytest.raises(ValueError, match="at least one stage"):
        Schedule([PRIOR], 10, prior=False)
