"""Two sets of corresponding points on the same surfaces, side by side: as many points, aligned alike, judged by the same measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tools.shape.correspondence import TEMPLATE_VERTICES, medoid
from tools.shape.distance import point_distances, surface_distance, warp_weights
from tools.shape.pdm import PointDistributionModel
from tools.shape.procrustes import Similarity, generalised_procrustes
from tools.shape.sampling import farthest_point_order
from tools.shape.statistics import Rows, compactness, generalisation, mode_counts, specificity, surface_generalisation
from tools.shape.surfaces import Surface, decimated, size, smoothed

__all__ = ["CarriedErrors", "Comparison", "belonging", "carried_errors", "compare"]

NEAR = 0.05  # of the structure's size: points farther from it lie on another structure


class Comparison(NamedTuple):
    """What :func:`compare` found, by "model" (the points judged) and "against" (the other points).

    Attributes:
        tables: compactness, generalisation, specificity and surface (see :mod:`tools.shape.statistics`) of each.
        summary: single figures, of each and of both together.
    """

    tables: dict[str, dict[str, Rows]]
    summary: dict[str, Any]


def belonging(points: np.ndarray, surfaces: Sequence[Surface]) -> np.ndarray:
    """Which of points (N, M, 3) lie on the surfaces, (M,) bool: true points of a joint are those of all its bones."""
    distances = np.mean([point_distances(own, surface) for own, surface in zip(points, surfaces)], axis=0)
    return distances < NEAR * np.mean([size(surface) for surface in surfaces])


class CarriedErrors(NamedTuple):
    """What :func:`carried_errors` found, mm.

    Attributes:
        pairs: (N, N), mean over the points carried from the first to the second case, zero on the diagonal. Holds the errors of both.
        points: (N, L), of the mean of what all others carry to a case: the errors of this case.
    """

    pairs: np.ndarray
    points: np.ndarray


def carried_errors(points: np.ndarray, other: np.ndarray) -> CarriedErrors:
    """How far points of one case, carried to another case by corresponding points, land from their partners there.

    Where ``other`` are true correspondences, these are the errors of ``points``, whichever places on the anatomy they mark.

    Args:
        points: (N, M, 3), mm, that make the map: splines, see :func:`tools.shape.distance.warp_weights`.
        other: (N, L, 3), mm, the points carried.
    """
    pairs, total = np.zeros((len(points), len(points))), np.zeros(other.shape)
    for number, (own, carried) in enumerate(zip(points, other)):
        offsets = warp_weights(own, carried) @ points - other
        offsets[number] = 0
        pairs[number] = np.linalg.norm(offsets, axis=2).mean(1)
        total += offsets
    return CarriedErrors(pairs, np.linalg.norm(total / (len(points) - 1), axis=2))


def compare(
    points: np.ndarray, other: np.ndarray, surfaces: Sequence[Surface], training: Sequence[bool], scaling: bool = False
) -> Comparison:
    """Measure two sets of corresponding points.

    Both are brought to the same number, the first of ``points`` and the farthest-first of ``other``. To see their surfaces, the mesh
    of the case in the middle of the set is warped by either set's points: a mesh that comes from neither model.

    Args:
        points: (N, M, 3) in the coordinates of the surfaces, mm; their beginnings are spread.
        other: (N, L, 3) likewise, in any order; those that lie on other structures are left out.
        surfaces: N.
        training: which cases make the models, (N,).
        scaling: remove size from both models.

    Raises:
        ValueError: fewer than four of the other points lie on the surfaces.
    """
    training, given = np.asarray(training, dtype=bool), other.shape[1]
    other = other[:, belonging(other, surfaces)]
    count = min(points.shape[1], other.shape[1])
    if count < 4:
        raise ValueError(f"only {count} of the {given} points lie on the surfaces")
    summary: dict[str, Any] = {"points": count, "points_elsewhere": given - other.shape[1]}
    other = other[:, farthest_point_order(generalised_procrustes(other).mean, count)]
    members = np.flatnonzero(training)
    middle = members[medoid([surfaces[member] for member in members])]
    mesh = smoothed(decimated(surfaces[middle], TEMPLATE_VERTICES))
    tables = {}
    for name, shapes in {"model": points[:, :count], "against": other}.items():
        weights = warp_weights(shapes[middle], mesh.vertices)
        aligned, _, motions = generalised_procrustes(shapes[training], scaling, shapes[middle])
        model = PointDistributionModel.fit(aligned)
        counts = mode_counts(max(len(model.deviations) - 1, 1))
        moved = []  # the surfaces, along with their points
        for motion, surface in zip(zip(*motions), (surfaces[member] for member in members)):
            moved.append(Surface(Similarity(*motion).apply(surface.vertices), surface.faces))
        tables[name] = {
            "compactness": compactness(model),
            "generalisation": generalisation(aligned, counts),
            "specificity": specificity(model, aligned, counts),
            "surface": surface_generalisation(aligned, moved, weights, mesh.faces, counts),
        }
        warped = (Surface(weights @ own, mesh.faces) for own in shapes)
        summary[name] = {
            "variance_mm2_per_point": float((model.deviations**2).sum() / count),
            "points_off_surface_mm": float(np.mean([point_distances(own, surface).mean() for own, surface in zip(shapes, surfaces)])),
            "surface_mm": float(np.mean([surface_distance(own, surface).mean for own, surface in zip(warped, surfaces)])),
        }
    pairs, errors = carried_errors(points, other)
    summary["points_mm"] = {
        "mean": float(errors.mean()),
        "p95": float(np.percentile(errors, 95)),
        "worst_case": float(errors.mean(1).max()),
    }
    summary["pairs_mm"] = float(pairs.sum() / (pairs.size - len(pairs)))
    return Comparison(tables, summary)
