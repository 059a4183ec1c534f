from __future__ import annotations

import sys

import pytest

from tools.bundle.options import check_device, check_folder, check_number, check_paths, check_range, check_seed
from tools.data.checks import DataError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset_dir": "data", "epochs": 3, "model_dir": None}, ["--dataset_dir", "data", "--epochs", "3"]),
        ({"dataset_dir": "Study #3"}, ["--dataset_dir", "Study #3"]),
        ({"dataset_dir": "Study #3"}, ["--dataset_dir", "'Study #3'", "--other#key=1"]),
        ({"dataset_dir": "data"}, []),
        ({"pairs": 1, "scale_weights": (1, 2)}, ["--pairs", "1", "--scale_weights", "1,2"]),
    ],
)
def test_paths_as_typed(options, words):
    check_paths(options, words)


def test_a_program_without_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program"])
    check_paths({"dataset_dir": "data"})


@pytest.mark.parametrize(
    ("options", "words", "message"),
    [
        ({"output_dir": 2024}, ["--output_dir", "2024"], r"--output_dir: read as the int 2024, not as a path; write \./2024"),
        ({"weights": 1.5}, [], "--weights: read as the float 1.5"),
        ({"dataset_dir": "Study"}, ["--dataset_dir", "Study #3"], "'Study #3' was read as 'Study', since # begins a comment"),
        ({"splits_file": "a"}, ["--splits_file=a#b"], "'a#b' was read as 'a'"),
    ],
)
def test_paths_that_were_misread(options, words, message):
    with pytest.raises(DataError, match=message):
        check_paths(options, words)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", 3.5])
def test_a_device_that_is_not_there(device):
    with pytest.raises(DataError, match=f"--device {device}: cannot be used here"):
        check_device(device)


def test_a_device_that_is_there():
    check_device("cpu")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "many"])
def test_lengths_that_are_none(value):
    with pytest.raises(DataError, match="--epochs must be a whole number from 1 on"):
        check_number("epochs", value)


def test_a_number_from_nought_on():
    check_number("seed", 0, least=0)
    with pytest.raises(DataError, match="--seed must be a whole number from 0 on, not -1"):
        check_number("seed", -1, least=0)


@pytest.mark.parametrize(("value", "most"), [(0, 1.0), (1, 1.0), (0.5, 1.0), (40, float("inf"))])
def test_a_number_within_its_range(value, most):
    check_range("share", value, most=most)


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "half", float("nan")])
def test_a_share_that_is_none(value):
    with pytest.raises(DataError, match=f"^--share must be a number from 0 to 1, not {value!r}"):
        check_range("share", value, most=1)


@pytest.mark.parametrize("value", [-1, float("inf")])
def test_a_weight_that_is_none(value):
    with pytest.raises(DataError, match=f"^--weight must be a number from 0 on, not {value!r}"):
        check_range("weight", value)


def test_a_seed_that_is_not_known():
    check_seed(None)
    with pytest.raises(DataError, match="--seed must be a whole number from 0 on, not -1"):
        check_seed(-1)


def test_a_folder_that_can_be_made_is_not_made(tmp_path):
    check_folder(tmp_path / "new" / "newer")
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: not a folder"):
        check_folder(tmp_path / "file" / "below")


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(DataError, match="cannot be written to; choose another --output_dir"):
        check_folder(tmp_path)
