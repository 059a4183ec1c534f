from __future__ import annotations

import json

import pytest

from tools.bundle.training_record import RECORD, evaluated_training, read_training, write_training
from tools.data.checks import DataError
from tools.metrics.tables import versions


def test_what_is_written_is_read(tmp_path):
    write_training(tmp_path / "out", {"seed": 3, "steps": {"network": 40}, "precision": "bf16"})
    expected = {"seed": 3, "steps": {"network": 40}, "precision": "bf16", "versions": versions()}
    assert read_training(tmp_path / "out") == expected
    assert [path.name for path in (tmp_path / "out").iterdir()] == [RECORD]


def test_the_steps_of_trainings_one_after_the_other_add_up(tmp_path):
    """The third goes on in the folder of the second, as MONAI Label does."""
    write_training(tmp_path / "first", {"seed": 0, "steps": {"prior": 10, "network": 50}})
    write_training(tmp_path / "next", {"seed": 1, "steps": {"prior": 0, "network": 7}}, tmp_path / "first")
    assert read_training(tmp_path / "next")["steps_before"] == {"prior": 10, "network": 50}
    write_training(tmp_path / "next", {"seed": 2, "steps": {"network": 5}}, tmp_path / "next")
    found = read_training(tmp_path / "next")
    assert (found["seed"], found["steps"], found["steps_before"]) == (2, {"network": 5}, {"prior": 10, "network": 57})


@pytest.mark.parametrize("before", [None, {"seed": 1}, {"steps": {"network": 5}, "steps_before": None}])
def test_steps_that_are_not_known_stay_so(tmp_path, before):
    if before is not None:
        write_training(tmp_path / "model", before)
    write_training(tmp_path, {"seed": 0, "steps": {"network": 1}}, tmp_path / "model")
    assert read_training(tmp_path)["steps_before"] is None


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, {"seed": None, "steps": None}),
        ({"seed": 3, "steps": {"network": 40}, "early_stopping_patience": 0}, {"seed": 3, "steps": {"network": 40}}),
        ({"seed": 3, "steps_before": None}, {"seed": 3, "steps": None, "steps_before": None}),
        ({"seed": 3, "early_stopping_patience": 5}, {"seed": 3, "steps": None, "early_stopping_patience": 5}),
    ],
)
def test_what_an_evaluation_says(tmp_path, record, expected):
    if record is not None:
        write_training(tmp_path, record)
    assert evaluated_training(tmp_path) == expected
    assert evaluated_training(tmp_path, seed=0) == {**expected, "seed": 0}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "not a JSON object"),
        ({"steps": 40}, '"steps" must map each network to its number of steps, not 40'),
        ({"steps_before": {"network": "many"}}, '"steps_before" must map each network'),
    ],
)
def test_a_record_that_is_none(tmp_path, content, fault):
    (tmp_path / RECORD).write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"training\.json: {fault}"):
        read_training(tmp_path)
