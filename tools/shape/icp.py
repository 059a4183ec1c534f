"""Iterative closest points (Besl & McKay 1992): how a template has to be placed to lie on a surface."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from tools.shape.procrustes import Similarity, fit_similarity
from tools.shape.sampling import farthest_point_order
from tools.shape.surfaces import Surface

__all__ = ["place"]

SAMPLES = 300
ADVANTAGE = 0.8  # another start than "as it stands" must fit this much better: near-symmetric shapes must not be turned round


def place(template: np.ndarray, surface: Surface, turn: bool = True, iterations: int = 30) -> Similarity:
    """The similarity that carries a template onto a surface.

    Tried are the template as it stands, moved by its centroid only (bodies in one scanner lie alike), and, if ``turn``, the four ways of
    laying its principal axes on the surface's. Residuals are symmetric, so neither side may leave the other uncovered.

    Args:
        template: vertices (V, 3), mm.
        surface: where they are to lie.
        turn: whether to try other orientations.
        iterations: of the best start; the others get a third of them.
    """
    moving = template[farthest_point_order(template, min(SAMPLES, len(template)))]
    fixed = surface.vertices[farthest_point_order(surface.vertices, min(SAMPLES, len(surface.vertices)))]
    tree = cKDTree(surface.vertices)
    centre, to = moving.mean(0), fixed.mean(0)
    size = np.sqrt(((fixed - to) ** 2).sum() / len(fixed) / (((moving - centre) ** 2).sum() / len(moving)))
    rotations = [np.eye(3)] + (_principal_rotations(moving, fixed) if turn else [])
    best, best_error = None, np.inf
    for number, rotation in enumerate(rotations):
        start = Similarity(rotation, np.array(size), to - size * rotation @ centre)
        motion, error = _iterate(moving, fixed, tree, start, max(1, iterations // 3))
        error *= ADVANTAGE if number == 0 else 1
        if error < best_error:
            best, best_error = motion, error
    return _iterate(moving, fixed, tree, best, iterations)[0]


def _iterate(moving: np.ndarray, fixed: np.ndarray, tree: cKDTree, motion: Similarity, iterations: int) -> tuple[Similarity, float]:
    for _ in range(iterations):
        moved = motion.apply(moving)
        _, there = tree.query(moved)
        _, back = cKDTree(moved).query(fixed)
        # partners both ways: the template neither shrinks into a corner nor leaves an end uncovered
        source = np.concatenate((moving, moving[back]))
        motion = fit_similarity(source, np.concatenate((tree.data[there], fixed)), scaling=True)
    moved = motion.apply(moving)
    error = tree.query(moved)[0].mean() + cKDTree(moved).query(fixed)[0].mean()
    return motion, float(error)


def _principal_rotations(moving: np.ndarray, fixed: np.ndarray) -> list[np.ndarray]:
    source, target = (np.linalg.eigh(np.cov(points.T))[1] for points in (moving, fixed))
    rotations = []
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        axes = target * np.array([*signs, 1.0])
        axes[:, 2] *= np.sign(np.linalg.det(axes) * np.linalg.det(source))
        rotations.append(axes @ source.T)
    return rotations
