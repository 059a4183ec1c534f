"""How good a point distribution model is: compactness, generalisation, specificity (Davies, Twining & Taylor 2008).

Errors are mean distances between corresponding points, mm. Compactness and generalisation reward models that smooth the anatomy away:
they mean something only beside how well the points' surface fits the true one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.spatial.distance import cdist

from tools.shape.distance import surface_distance
from tools.shape.pdm import PointDistributionModel
from tools.shape.surfaces import Surface

__all__ = ["compactness", "generalisation", "mode_counts", "specificity", "surface_generalisation"]

Rows = list[dict[str, float]]


def mode_counts(most: int) -> list[int]:
    """Numbers of modes worth a row of a table: 1 to 10, then ever fewer, up to ``most``."""
    counts = [*range(1, 11), 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 300, 500]
    return [*[count for count in counts if count < most], most]


def compactness(model: PointDistributionModel) -> Rows:
    """Share of the variance by number of modes: rows of ``modes``, ``variance`` (mm^2 summed over all points) and ``share``."""
    variance = np.cumsum(model.deviations**2)
    return [{"modes": k + 1, "variance": float(v), "share": float(v / variance[-1])} for k, v in enumerate(variance)]


def generalisation(shapes: np.ndarray, modes: Sequence[int]) -> Rows:
    """Error of each shape rebuilt by the model of all others.

    Args:
        shapes: (N, M, 3), aligned, mm; N >= 3.
        modes: the numbers of modes asked for, rising; at most N - 2 count.

    Returns:
        rows of ``modes``, ``error`` (mean) and ``std``.
    """
    errors = [
        [np.linalg.norm(rebuilt - shape, axis=1).mean() for rebuilt in candidates]
        for shape, candidates in zip(shapes, _left_out(shapes, modes))
    ]
    return _rows(modes, np.array(errors))


def surface_generalisation(
    shapes: np.ndarray, surfaces: Sequence[Surface], weights: np.ndarray, faces: np.ndarray, modes: Sequence[int]
) -> Rows:
    """Symmetric mean surface distance of each shape rebuilt by the model of all others, to its true surface.

    Points that slide, or that leave a part of the surface out, gain nothing here.

    Args:
        shapes: (N, M, 3), aligned, mm; N >= 3.
        surfaces: the true ones, moved as the shapes were.
        weights: (V, M), from points to the vertices of a mesh, see :func:`tools.shape.distance.warp_weights`.
        faces: (F, 3), of that mesh.
        modes: the numbers of modes asked for, rising; at most N - 2 count.

    Returns:
        rows of ``modes``, ``error`` (mean) and ``std``.
    """
    errors = [
        [surface_distance(Surface(weights @ rebuilt, faces), surface).mean for rebuilt in candidates]
        for surface, candidates in zip(surfaces, _left_out(shapes, modes))
    ]
    return _rows(modes, np.array(errors))


def specificity(model: PointDistributionModel, shapes: np.ndarray, modes: Sequence[int], samples: int = 500, seed: int = 0) -> Rows:
    """Error of random shapes of the model (normally distributed scores) against the training shape nearest to each.

    Args:
        model: the model.
        shapes: (N, M, 3), its training shapes, aligned, mm.
        modes: the numbers of modes asked for.
        samples: random shapes for each; the same scores serve all.
        seed: of the scores.

    Returns:
        rows of ``modes``, ``error`` (mean) and ``std``.
    """
    scores = np.random.default_rng(seed).normal(size=(samples, len(model.deviations))) * model.deviations
    errors = []
    for count in modes:
        drawn = model.reconstruct(scores[:, :count])
        nearest = cdist(drawn.reshape(samples, -1), shapes.reshape(len(shapes), -1)).argmin(1)
        errors.append(np.linalg.norm(drawn - shapes[nearest], axis=2).mean(1))
    return _rows(modes, np.stack(errors, axis=1))


def _left_out(shapes: np.ndarray, modes: Sequence[int]) -> Iterator[list[np.ndarray]]:
    """For each shape, what the model of all others makes of it with each number of modes."""
    for number, shape in enumerate(shapes):
        model = PointDistributionModel.fit(np.delete(shapes, number, axis=0))
        scores = model.project(shape)
        yield [model.reconstruct(scores[:count]) for count in modes]


def _rows(modes: Sequence[int], errors: np.ndarray) -> Rows:
    """Mean and the sample's standard deviation (n - 1), NaN of a single shape, by number of modes."""
    deviations = errors.std(0, ddof=1) if len(errors) > 1 else np.full(errors.shape[1], np.nan)
    return [{"modes": n, "error": float(mean), "std": float(std)} for n, mean, std in zip(modes, errors.mean(0), deviations)]
