from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.data.checks import DataError
from tools.shape.pdm import PointDistributionModel
from tools.shape.statistics import compactness, generalisation, mode_counts, specificity


@pytest.fixture(scope="module")
def shapes() -> np.ndarray:
    """40 shapes of 10 points with two modes of standard deviation 4 and 1 and very little else."""
    generator = np.random.default_rng(0)
    modes = np.linalg.qr(generator.normal(size=(30, 2)))[0].T.reshape(2, 10, 3)
    scores = generator.normal(size=(40, 2)) * [4, 1]
    return generator.normal(size=(10, 3)) * 20 + np.tensordot(scores, modes, axes=1) + generator.normal(size=(40, 10, 3)) * 1e-3


@pytest.fixture(scope="module")
def model(shapes) -> PointDistributionModel:
    return PointDistributionModel.fit(shapes)


def test_variance_is_that_of_the_scores(shapes, model):
    assert model.deviations[:2] == pytest.approx([4, 1], rel=0.25)
    assert (model.deviations**2).sum() == pytest.approx(((shapes - shapes.mean(0)) ** 2).sum() / 39)
    assert model.project(shapes).std(0, ddof=1) == pytest.approx(model.deviations)


def test_modes_are_orthonormal(model):
    flat = model.modes.reshape(len(model.modes), -1)
    assert flat @ flat.T == pytest.approx(np.eye(len(flat)), abs=1e-9)


def test_all_modes_rebuild_the_training_shapes(shapes, model):
    assert model.reconstruct(model.project(shapes)) == pytest.approx(shapes, abs=1e-8)


def test_two_modes_are_enough(shapes, model):
    assert model.modes_for(0.99) == 2
    assert model.modes_for(1.0) == len(model.deviations)
    assert model.reconstruct(model.project(shapes, 2)) == pytest.approx(shapes, abs=0.01)
    assert [row["share"] for row in compactness(model)] == pytest.approx(model.explained())


def test_pose_is_found(shapes, model):
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    moved = shapes[3] @ turn.T + [100, 0, -5]
    rebuilt, motion = model.approximate(moved)
    assert rebuilt == pytest.approx(moved, abs=0.05)
    assert motion.rotation == pytest.approx(turn.T, abs=0.02)


def test_half_of_the_scores_is_half_way_to_the_mean(shapes, model):
    whole, mean, half = (model.approximate(shapes[3], shrinkage=shrinkage)[0] for shrinkage in (1, 0, 0.5))
    assert np.abs(whole - mean).max() > 0.1
    assert half == pytest.approx((whole + mean) / 2)


def test_shapes_that_are_all_the_same(shapes):
    same = shapes[:1] + np.random.default_rng(0).normal(size=(3, 10, 3)) * 1e-12  # rounding is no mode
    model = PointDistributionModel.fit(same)
    assert model.reconstruct(model.project(same)) == pytest.approx(same)
    with pytest.raises(ValueError, match="all shapes are the same"):
        model.modes_for(0.9)


def test_spread_of_errors_is_the_samples():
    """Three shapes on a line, -1, 0 and 4 mm in every coordinate: without modes their errors are those to the mean of the two others."""
    shapes = np.array([-1.0, 0.0, 4.0])[:, None, None] * np.ones((3, 2, 3))
    errors = np.array([3.0, 1.5, 4.5]) * 3**0.5
    [row] = generalisation(shapes, [0])
    assert row["error"] == pytest.approx(errors.mean())
    assert row["std"] == pytest.approx(1.5 * 3**0.5)  # n - 1


def test_a_single_random_shape_has_no_spread(shapes, model):
    assert np.isnan(specificity(model, shapes, [1], samples=1)[0]["std"])


def test_generalisation_falls_to_the_noise(shapes):
    rows = generalisation(shapes, [1, 2])
    assert rows[0]["error"] > 0.1
    assert rows[1]["error"] < 0.01


def test_specificity_of_a_single_line_of_shapes(shapes, model):
    rows = specificity(model, shapes, [1, 2], samples=200)
    assert 0 < rows[0]["error"] < rows[1]["error"] < 1
    assert rows == specificity(model, shapes, [1, 2], samples=200)


def test_mode_counts_end_at_the_most():
    assert mode_counts(3) == [1, 2, 3]
    assert mode_counts(13) == [*range(1, 11), 12, 13]


def test_file_holds_the_model(tmp_path, model):
    model.save(tmp_path / "pdm.npz")
    back = PointDistributionModel.load(tmp_path / "pdm.npz")
    assert (back.modes == model.modes).all()
    assert back.cases == 40
    assert back.tensors()["modes"].dtype == torch.float32


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive"])
def test_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "pdm.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"pdm\.npz: "):
        PointDistributionModel.load(path)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "pdm.npz", mean=np.zeros((4, 3)), modes=np.zeros((2, 5, 3)), deviations=np.ones(2), cases=9)
    with pytest.raises(DataError, match="do not fit together"):
        PointDistributionModel.load(tmp_path / "pdm.npz")


def test_one_shape_is_no_model(shapes):
    with pytest.raises(ValueError, match="N >= 2"):
        PointDistributionModel.fit(shapes[:1])
