from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from tools.data.checks import DataError
from tools.data.decathlon import read_dataset
from tools.data.files import write_nifti
from tools.data.plan import make_plan
from tools.data.typical import describe, representatives, typical_cases


def on_a_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack((np.cos(angles), np.sin(angles)), axis=1)


# Sums of cosines to all six: 2.33, 2.88, 3.35, 3.41, 2.95, 2.10. Once 90 degrees is chosen, 10 degrees adds 0.985 + 0.826 + 0.643 (0 and 20
# add 2.41), and then 115 degrees 0.094 (100 adds 0.075, 0 and 20 add 0.015).
ROWS = on_a_circle(0, 10, 20, 90, 100, 115)


@pytest.mark.parametrize(
    ("candidates", "start", "expected"),
    [(None, 0, [3, 1, 5]), (None, 1, [2, 4]), ([0, 5], 0, [0, 5]), ([5, 0], 1, [5, 0]), ({4}, 0, [4])],
)
def test_order(candidates, start, expected):
    assert list(islice(representatives(ROWS, candidates, start), len(expected))) == expected


def test_every_candidate_comes_once():
    assert sorted(representatives(ROWS)) == list(range(6))
    assert sorted(representatives(ROWS, {1, 4, 5})) == [1, 4, 5]


@pytest.mark.parametrize("start", [-1, 6])
def test_a_start_that_is_not_there(start):
    with pytest.raises(ValueError, match="start must be from 0 to 5"):
        next(representatives(ROWS, start=start))


def test_descriptions_are_correlations(tiny_dataset):
    dataset = read_dataset(tiny_dataset)
    rows = describe(dataset.cases, make_plan(dataset))
    assert rows.shape == (6, 8 * 8 * 8)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_the_odd_image_comes_last_of_two(tiny_dataset):
    dataset = read_dataset(tiny_dataset)
    odd = dataset.cases[2]
    write_nifti(odd.image, np.random.default_rng(0).normal(size=(20, 22, 18)).astype(np.float32), np.eye(4))
    plan = make_plan(dataset)
    assert next(typical_cases(dataset.cases, plan)) != odd.name
    assert list(typical_cases(dataset.cases, plan, {odd.name, "case_00"})) == ["case_00", odd.name]


def test_labels_are_not_looked_at(tiny_dataset):
    dataset = read_dataset(tiny_dataset)
    plan = make_plan(dataset)
    without = [replace(case, label=None) for case in dataset.cases]
    assert list(typical_cases(without, plan)) == list(typical_cases(dataset.cases, plan))


def test_a_constant_image_is_like_no_other(tiny_dataset):
    dataset = read_dataset(tiny_dataset)
    write_nifti(dataset.cases[0].image, np.full((16, 20, 18), 7, dtype=np.float32), np.eye(4))
    rows = describe(dataset.cases, make_plan(dataset))
    np.testing.assert_array_equal(rows[0], 0)


def test_a_missing_image(tiny_dataset):
    dataset = read_dataset(tiny_dataset)
    plan = make_plan(dataset)
    dataset.cases[1].image.unlink()
    with pytest.raises(DataError, match=r"case_01.nii.gz"):
        next(typical_cases(dataset.cases, plan))
