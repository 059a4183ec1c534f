from __future__ import annotations

import math

import numpy as np
import pytest

from tools.metrics.embeddings import project, silhouette


def at(*degrees: float) -> np.ndarray:
    return np.array([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


@pytest.mark.parametrize(
    ("features", "names", "expected"),
    [
        # a = 0 and b = 1 for all
        (at(0, 0, 90, 90), "xxyy", 1.0),
        # a = 1, b = (0 + 1) / 2 for all
        (at(0, 90, 0, 90), "xxyy", -0.5),
        # a = 1 - cos 60 = 1/2 for all; b = (2 - cos 90 - cos 150) / 2 for the outer two, (2 - cos 30 - cos 90) / 2 for the inner two
        (at(0, 60, 90, 150), "xxyy", 1 - 0.5 * (1 / (2 + math.sqrt(0.75)) + 1 / (2 - math.sqrt(0.75)))),
        # the sample alone counts as 0
        (at(0, 0, 180), "xxy", 2 / 3),
    ],
)
def test_silhouette_by_hand(features, names, expected):
    assert silhouette(features, list(names)) == pytest.approx(expected)


def test_lengths_do_not_count():
    lengths = np.array([[1.0], [7.0], [0.2], [30.0]])
    assert silhouette(lengths * at(0, 60, 90, 150), list("xxyy")) == pytest.approx(silhouette(at(0, 60, 90, 150), list("xxyy")))


@pytest.mark.parametrize("names", ["xxxx", "wxyz"])
def test_silhouette_of_no_groups_is_not_defined(names):
    assert math.isnan(silhouette(at(0, 60, 90, 150), list(names)))


@pytest.mark.parametrize(
    ("features", "names", "message"),
    [
        (at(0, 60), "x", "2 samples, but 1 names"),
        (np.zeros(4), "xxyy", r"must be \(N, F\)"),
        (np.array([[0.0, np.nan]]), "x", "must be finite"),
    ],
)
def test_silhouette_refuses(features, names, message):
    with pytest.raises(ValueError, match=message):
        silhouette(features, list(names))


@pytest.fixture
def groups() -> tuple[np.ndarray, np.ndarray]:
    """Two groups of twelve samples of five features, each about a direction of its own."""
    random = np.random.default_rng(0)
    names = np.repeat([0, 1], 12)
    return np.eye(5)[names] + random.normal(0, 0.05, (24, 5)), names


def test_map_keeps_groups_apart(groups):
    features, names = groups
    places = project(features)
    assert places.shape == (24, 2)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (names[distance.argmin(1)] == names).all()


def test_map_follows_its_seed(groups):
    features, _ = groups
    assert np.array_equal(project(features, seed=3), project(features, seed=3))


def test_map_of_few_samples():
    assert np.isfinite(project(at(0, 10, 80, 90))).all()


def test_map_of_one_direction():
    assert np.array_equal(project(np.ones((5, 3)) * np.arange(1, 6)[:, None]), np.zeros((5, 2)))


@pytest.mark.parametrize("shape", [(3, 4), (9, 1)])
def test_map_of_too_little(shape):
    with pytest.raises(ValueError, match="at least 4 samples of 2 features"):
        project(np.ones(shape))
