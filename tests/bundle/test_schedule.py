from __future__ import annotations

from dataclasses import dataclass

import pytest

from tools.bundle.schedule import StepSampler, parsed_stages, stage_bounds, warmup_cosine
from tools.data.checks import DataError


@dataclass(frozen=True)
class Stage:
    name: str
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.share <= 0:
            raise DataError("not positive")


def test_stages_of_dictionaries():
    assert parsed_stages([{"name": "a", "share": 2}, Stage("b")], Stage) == [Stage("a", 2), Stage("b")]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("joint", "must be a list of dictionaries"),
        ([1], "1 is no dictionary with a name"),
        ([{"share": 1}], "is no dictionary with a name"),
        ([{"name": "a", "shares": 1}], "unknown key of the stage 'a': 'shares', the nearest is 'share'"),
        ([{"name": "a", "share": "half"}], "stage 'a': '<=' not supported"),
    ],
)
def test_faulty_stages(stages, message):
    with pytest.raises(DataError, match=message):
        parsed_stages(stages, Stage)


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.02),  # never nothing
        (0.05, 0.5),
        (0.1, 1.0),
        (0.55, 0.2 + 0.8 * 0.5),  # half of the way down
        (1.0, 0.2),
    ],
)
def test_rises_and_falls(progress, expected):
    assert warmup_cosine(progress, warmup=0.1, final=0.2) == pytest.approx(expected)


def test_without_warm_up():
    assert warmup_cosine(0.0, warmup=0.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("shares", "steps", "expected"),
    [([1.0], 7, [0, 7]), ([0.5, 0.4, 0.1], 10, [0, 5, 9, 10]), ([1, 2], 10, [0, 3, 10]), ([1, 1, 1], 1, [0, 0, 1, 1])],
)
def test_shares_divide_a_run(shares, steps, expected):
    assert stage_bounds(shares, steps) == expected


def test_a_pass_goes_on_where_the_last_ended():
    class Numbers(StepSampler):
        def batch(self, step):
            return [step]

    made = Numbers(2)
    assert len(made) == 2
    assert [*made, *made] == [[0], [1], [2], [3]]
    made.next_step = 9
    assert list(made) == [[9], [10]]
