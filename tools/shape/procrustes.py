"""Alignment of corresponding points: one pair in closed form, and generalised Procrustes for a set (Gower 1975; Goodall 1991)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Alignment", "Similarity", "are_mirrored", "fit_similarity", "generalised_procrustes", "mirror"]

FLAT = 0.2  # root-mean-square radii: shapes that are nearly flat may bend to either side


class Similarity(NamedTuple):
    """y = scale * R x + t, one or a batch (...) of them.

    Attributes:
        rotation: R, (..., 3, 3); a reflection where that was allowed.
        scale: (...).
        translation: t, (..., 3), mm.
    """

    rotation: np.ndarray
    scale: np.ndarray
    translation: np.ndarray

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Move points (..., M, 3)."""
        return np.asarray(self.scale)[..., None, None] * points @ np.swapaxes(self.rotation, -1, -2) + self.translation[..., None, :]

    def inverse(self) -> Similarity:
        """The way back."""
        rotation = np.swapaxes(self.rotation, -1, -2)
        scale = 1 / np.asarray(self.scale)
        return Similarity(rotation, scale, -scale[..., None] * np.einsum("...ij,...j->...i", rotation, self.translation))


class Alignment(NamedTuple):
    """What :func:`generalised_procrustes` found.

    Attributes:
        aligned: (N, M, 3), mm.
        mean: (M, 3), mm, centred on the origin.
        transforms: a batch of N from the shapes to ``aligned``.
    """

    aligned: np.ndarray
    mean: np.ndarray
    transforms: Similarity


def fit_similarity(
    source: np.ndarray, target: np.ndarray, scaling: bool = False, reflection: bool = False, weights: np.ndarray | None = None
) -> Similarity:
    """Least-squares motion of points onto their partners (Umeyama 1991, equations 40 to 43).

    Args:
        source: (..., M, 3), mm.
        target: (..., M, 3) or (M, 3), mm.
        scaling: whether the size may change.
        reflection: whether the result may be a mirror image.
        weights: (M,), not negative.

    Raises:
        ValueError: the numbers of points differ, or there are fewer than three.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if source.shape[-2:] != target.shape[-2:] or source.shape[-1] != 3 or source.shape[-2] < 3:
        raise ValueError(f"expected partners (..., M, 3) with M >= 3, got {source.shape} and {target.shape}")
    weights = np.ones(source.shape[-2]) if weights is None else np.asarray(weights, dtype=np.float64)
    weights = (weights / weights.sum())[:, None]
    from_centre, to_centre = (weights * source).sum(-2), (weights * target).sum(-2)
    source, target = source - from_centre[..., None, :], target - to_centre[..., None, :]
    u, singular, vt = np.linalg.svd(np.swapaxes(weights * target, -1, -2) @ source)
    signs = np.ones_like(singular)
    if not reflection:
        signs[..., 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * signs[..., None, :]) @ vt
    scale = np.ones(singular.shape[:-1])
    if scaling:
        scale = (singular * signs).sum(-1) / np.maximum((weights * source**2).sum((-1, -2)), 1e-300)
    return Similarity(rotation, scale, to_centre - scale[..., None] * np.einsum("...ij,...j->...i", rotation, from_centre))


def generalised_procrustes(
    shapes: np.ndarray, scaling: bool = False, reference: np.ndarray | None = None, iterations: int = 100, tolerance: float = 1e-6
) -> Alignment:
    """Align shapes to their own mean.

    Args:
        shapes: (N, M, 3), mm.
        scaling: whether sizes are removed; the mean then has the shapes' mean centroid size, which keeps millimetres meaningful.
        reference: (M, 3), whose orientation the mean takes; by default the first shape.
        iterations: at most so many rounds.
        tolerance: stop when no point of the mean moves by more than this, mm.

    Raises:
        ValueError: ``shapes`` is not (N, M, 3).
    """
    shapes = np.asarray(shapes, dtype=np.float64)
    if shapes.ndim != 3 or shapes.shape[2] != 3 or not len(shapes):
        raise ValueError(f"shapes must be (N, M, 3), got {shapes.shape}")
    size = _size(shapes).mean()
    reference = shapes[0] if reference is None else np.asarray(reference, dtype=np.float64)
    mean = reference = reference - reference.mean(0)
    for _ in range(iterations):
        old = mean
        mean = fit_similarity(shapes, mean, scaling).apply(shapes).mean(0)
        mean = fit_similarity(mean, reference).apply(mean)  # rotations common to all would let it drift
        if scaling:
            mean = mean * (size / _size(mean))
        if np.abs(mean - old).max() < tolerance:
            break
    transforms = fit_similarity(shapes, mean, scaling)
    return Alignment(transforms.apply(shapes), mean, transforms)


def mirror(points: np.ndarray) -> np.ndarray:
    """Points (..., 3) mirrored in x."""
    return points * np.array([-1.0, 1.0, 1.0])


def are_mirrored(shapes: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Which shapes are mirror images of a reference, (...) bool.

    A reflection brings them at least twice as near to it as the best rotation, which leaves its points more than a fifth of its
    root-mean-square radius off.

    Args:
        shapes: (..., M, 3), mm.
        reference: (M, 3), mm.
    """
    turned, reflected = (
        _size(fit_similarity(shapes, reference, reflection=reflection).apply(shapes) - reference) for reflection in (False, True)
    )
    return (reflected < turned / 2) & (turned > FLAT * _size(reference))


def _size(points: np.ndarray) -> np.ndarray:
    """Centroid size (Bookstein): root of the summed squared distances to the centroid."""
    return np.sqrt(((points - points.mean(-2, keepdims=True)) ** 2).sum((-1, -2)))
