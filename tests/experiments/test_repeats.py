from __future__ import annotations

import pytest

from tools.experiments.repeats import holds, repetitions


def test_a_run_without_repetitions_is_itself():
    assert repetitions("full", {}) == {"full": {}}


def test_a_run_for_every_combination_the_first_key_outermost():
    assert repetitions("full", {"seed": [0, 1], "fold": [0, 1]}) == {
        "full_seed0_fold0": {"seed": 0, "fold": 0},
        "full_seed0_fold1": {"seed": 0, "fold": 1},
        "full_seed1_fold0": {"seed": 1, "fold": 0},
        "full_seed1_fold1": {"seed": 1, "fold": 1},
    }


def test_texts_stand_without_their_key():
    assert list(repetitions("individual", {"domains": ["knee"], "fold": [3]})) == ["individual_knee_fold3"]


@pytest.mark.parametrize(
    ("repeat", "message"),
    [
        ({"fold": 3}, "a list of values"),
        ({"fold": []}, "a list of values"),
        ({"fold": [0, 0]}, "'fold' twice"),
        ({"domains": ["../knee"]}, "'../knee' for 'domains'"),
        ({"stages": [{}]}, "for 'stages'"),
    ],
)
def test_repetitions_that_cannot_be_named(repeat, message):
    with pytest.raises(ValueError, match=message):
        repetitions("full", repeat)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [(True, True), (False, False), ({"seed": [1, 2]}, True), ({"seed": [2]}, False), ({"seed": [2], "fold": [0]}, True)],
)
def test_holds(condition, expected):
    assert holds("optional", condition, {"seed": 1, "fold": 0}) is expected


def test_a_condition_on_a_key_that_is_not_repeated():
    with pytest.raises(ValueError, match="optional must map keys of repeat to lists of their values, not 'sed'"):
        holds("optional", {"sed": [1]}, {"seed": 1})
