from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from deepatlas.stages import Schedule, Stage, has_network, usable_stages

R, S = "registration", "segmentation"
EXPERIMENTS = Path(__file__).resolve().parents[3] / "bundles" / "deepatlas" / "configs" / "experiments"


def networks(schedule: Schedule, steps: int) -> str:
    return "".join(schedule(i).network[0] for i in range(steps))


def names(schedule: Schedule, steps: int) -> list[str]:
    return [schedule(i).stage.name for i in range(steps)]


@pytest.mark.parametrize(
    ("stages", "total", "expected"),
    [
        ([{"name": "a", "registration": 1}], 4, "rrrr"),
        ([{"name": "a", "segmentation": 1}], 4, "ssss"),
        ([{"name": "a", "registration": 3, "segmentation": 1}], 9, "srrrsrrrs"),
        ([{"name": "a", "registration": 1, "segmentation": 2}], 7, "ssrssrs"),
        # a stage begins a turn of its own
        ([{"name": "a", "registration": 2, "segmentation": 1}, {"name": "b", "registration": 2, "segmentation": 1}], 8, "srrssrrs"),
        ([{"name": "a", "share": 0.6, "registration": 1}, {"name": "b", "share": 0.4, "segmentation": 1}], 10, "rrrrrrssss"),
        # shares are relative
        ([{"name": "a", "share": 3, "registration": 1}, {"name": "b", "share": 1, "segmentation": 1}], 8, "rrrrrrss"),
        # a stage too short for a step of its own is left out
        ([{"name": "a", "share": 0.9, "registration": 1}, {"name": "b", "share": 0.1, "segmentation": 1}], 4, "rrrr"),
    ],
)
def test_alternation(stages, total, expected):
    assert networks(Schedule(stages, total), total) == expected


@pytest.mark.parametrize("switch", ["warp_labelled", "share_features", "restart"])
def test_switches_as_they_come_from_a_command_line(switch):
    assert getattr(Stage("a", registration=1, **{switch: "false"}), switch) is False
    assert getattr(Stage("a", registration=1, **{switch: "True"}), switch) is True


def test_paper_alternation_one_to_twenty():
    schedule = Schedule([{"name": "joint", "registration": 20, "segmentation": 1}], 63)
    assert networks(schedule, 63) == ("s" + 20 * "r") * 3
    assert (schedule.count(S), schedule.count(R)) == (3, 60)


def test_shares_of_three_stages():
    stages = [
        {"name": "pre_r", "share": 0.6, "registration": 1},
        {"name": "pre_s", "share": 0.3, "segmentation": 1},
        {"name": "joint", "share": 0.1, "registration": 20, "segmentation": 1},
    ]
    schedule = Schedule(stages, 1000)
    assert [names(schedule, 1000).count(name) for name in ("pre_r", "pre_s", "joint")] == [600, 300, 100]
    # the joint part holds 4 whole turns of 21 and 16 steps of the fifth: 5 of segmentation
    assert (schedule.count(R), schedule.count(S)) == (695, 305)


def test_every_step_has_a_stage_whatever_the_rounding():
    stages = [{"name": str(k), "share": share, "registration": 1} for k, share in enumerate((1, 2, 4))]
    for total in range(1, 30):
        schedule = Schedule(stages, total)
        assert schedule.count(R) == total
        assert names(schedule, total) == sorted(names(schedule, total))


def test_progress_counts_the_steps_of_one_network():
    schedule = Schedule([{"name": "a", "registration": 1, "segmentation": 1}], 8)
    assert [schedule(i).progress for i in range(8)] == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_where_a_stage_begins():
    stages = [{"name": "a", "registration": 1}, {"name": "b", "share": 0.5, "registration": 1}, {"name": "c", "segmentation": 1}]
    schedule = Schedule(stages, 10)
    assert [i for i in range(10) if schedule(i).begins] == [0, 4, 6]


def test_past_the_end_the_last_step_is_repeated():
    schedule = Schedule([{"name": "a", "registration": 1}], 4)
    assert schedule(100) == schedule(3)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.02),  # the floor of the warm-up
        (0.01, 0.1),
        (0.05, 0.5),
        (0.1, 1.0),
        (0.55, 0.505),  # half of the cosine: 0.01 + 0.99 / 2
        (0.325, 0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2),
        (1.0, 0.01),
    ],
)
def test_learning_rate(progress, expected):
    schedule = Schedule([{"name": "a", "registration": 1}], 10, warmup=0.1, final=0.01)
    assert schedule.learning_rate(schedule(0)._replace(progress=progress)) == pytest.approx(expected)


def test_learning_rate_without_warm_up():
    schedule = Schedule([{"name": "a", "registration": 1}], 10, warmup=0.0)
    assert schedule.learning_rate(schedule(0)) == 1.0


def test_a_restart_is_for_the_networks_of_its_stage():
    stages = [
        {"name": "a", "segmentation": 1, "registration": 1},
        {"name": "b", "segmentation": 1, "restart": True, "learning_rate": 0.5},
        {"name": "c", "segmentation": 1, "registration": 1, "learning_rate": 9.0},
    ]
    schedule = Schedule(stages, 12, warmup=0.0)
    segmentation = [schedule(i) for i in range(12) if schedule(i).network == S]
    assert [step.progress for step in segmentation] == pytest.approx([0, 1 / 2, 0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert [step.rate for step in segmentation] == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    registration = [schedule(i) for i in range(12) if schedule(i).network == R]
    assert [step.progress for step in registration] == [0, 0.25, 0.5, 0.75]
    assert [step.rate for step in registration] == [1, 1, 1, 1]
    # in the middle of the cosine, between 1 and 0.01
    assert schedule.learning_rate(segmentation[5]) == pytest.approx(0.5 * 0.505)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "x"}, "'x' needs a positive share and at least one step"),
        ({"name": "x", "share": 0, "registration": 1}, "'x' needs a positive share"),
        ({"name": "x", "registration": -1, "segmentation": 1}, "'x' needs"),
        ({"name": "x", "registration": 1.5}, "'x': registration and segmentation are whole numbers"),
        ({"name": "x", "registration": 1, "learning_rate": 0.0}, "'x': learning_rate must be positive"),
        ({"name": "x", "registration": 1, "registration_from": "label"}, "'x': registration_from must be one of"),
        ({"name": "x", "segmentation": 1, "segmentation_from": "images"}, "'x': segmentation_from must be one of"),
    ],
)
def test_a_wrong_stage_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Stage(**arguments)


def test_no_stage():
    with pytest.raises(ValueError, match="at least one stage"):
        Schedule([], 10)


@pytest.mark.parametrize(
    ("stages", "total", "expected"),
    [
        ([{"name": "a", "segmentation": 1}], 10, 0),
        ([{"name": "a", "registration": 1}, {"name": "b", "segmentation": 1}], 10, 5),
        ([{"name": "a", "segmentation": 1}, {"name": "b", "registration": 1}], 10, 0),
        (
            [{"name": "a", "segmentation": 1}, {"name": "b", "registration": 1}, {"name": "c", "registration": 20, "segmentation": 1}],
            30,
            20,
        ),
        # too short for a step of its own
        ([{"name": "a", "share": 0.9, "segmentation": 1}, {"name": "b", "share": 0.1, "segmentation": 1}], 4, 0),
    ],
)
def test_where_the_last_stage_of_a_network_begins(stages, total, expected):
    assert Schedule(stages, total).last_begin("segmentation") == expected


def test_a_network_that_no_stage_trains_has_no_last_stage():
    with pytest.raises(ValueError, match="no stage trains the segmentation network"):
        Schedule([{"name": "a", "registration": 1}], 4).last_begin("segmentation")


@pytest.mark.parametrize("overlay", sorted(EXPERIMENTS.glob("*.json")), ids=lambda path: path.stem)
def test_no_experiment_replaces_what_the_registration_has_learnt(overlay):
    """By the segmentation's features: they are to be shared before the registration's first step."""
    stages = json.loads(overlay.read_text()).get("stages", [])
    shared = [k for k, stage in enumerate(stages) if stage.get("share_features")]
    learnt = [k for k, stage in enumerate(stages) if stage.get("registration")]
    assert all(k <= min(learnt) for k in shared)


JOINT = Stage("joint", registration=20, segmentation=1)
ANSWERS = Stage("answers", segmentation=2, segmentation_from="answers")
REGISTRATION = Stage("registration", registration=1, registration_from="labels")


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([REGISTRATION, JOINT], [Stage("joint", segmentation=1, segmentation_from="labels")]),
        ([ANSWERS], [ANSWERS]),
        ([{"name": "answers", "segmentation": 2, "segmentation_from": "answers"}, REGISTRATION], [ANSWERS]),
        ([REGISTRATION], [REGISTRATION]),
    ],
)
def test_stages_of_a_model_without_registration(stages, expected, tmp_path):
    assert usable_stages(stages, tmp_path, finetune="true") == expected


def test_stages_stay_where_both_networks_are_there_or_begin_anew(tmp_path):
    assert usable_stages([REGISTRATION, JOINT], tmp_path) == [REGISTRATION, JOINT]
    (tmp_path / "registration.pt").touch()
    assert usable_stages([REGISTRATION, JOINT], tmp_path, finetune=True) == [REGISTRATION, JOINT]


@pytest.mark.parametrize(("stages", "warned"), [([JOINT], True), ([ANSWERS], False)])
def test_a_warning_says_what_is_left_out(stages, warned, tmp_path, caplog):
    usable_stages(stages, tmp_path, finetune=True)
    assert ("registration.pt: there is none" in caplog.text) == warned


@pytest.mark.parametrize(
    ("stage", "finetune", "weights", "expected"),
    [(JOINT, False, False, True), (ANSWERS, False, True, False), (ANSWERS, "true", True, True), (ANSWERS, "true", False, False)],
)
def test_whether_there_is_a_registration_network(stage, finetune, weights, expected, tmp_path):
    if weights:
        (tmp_path / "registration.pt").touch()
    assert has_network("registration", Schedule([stage], 21), tmp_path, finetune) == expected


@pytest.mark.parametrize(
    ("stage", "finetune", "weights", "expected"),
    [
        (JOINT, False, False, True),
        (REGISTRATION, False, True, False),
        (REGISTRATION, "true", True, True),
        (REGISTRATION, "true", False, False),
    ],
)
def test_whether_there_is_a_segmentation_network(stage, finetune, weights, expected, tmp_path):
    if weights:
        (tmp_path / "model.pt").touch()
    assert has_network("segmentation", Schedule([stage], 21), tmp_path, finetune) == expected
