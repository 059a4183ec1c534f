"""Point distribution model: the principal components of aligned shapes (Cootes et al. 1995)."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tools.data.checks import DataError
from tools.data.files import atomic_path
from tools.shape.procrustes import Similarity, fit_similarity

__all__ = ["PointDistributionModel"]

_ARRAYS = ("mean", "modes", "deviations", "cases")


@dataclass(frozen=True)
class PointDistributionModel:
    """Shapes as a mean plus modes: x = mean + sum_k score_k mode_k.

    Attributes:
        mean: (M, 3), mm.
        modes: (K, M, 3), orthonormal over their M x 3 numbers, of falling variance.
        deviations: (K,), standard deviation of the scores over the training shapes, mm.
        cases: number of training shapes.
    """

    mean: np.ndarray
    modes: np.ndarray
    deviations: np.ndarray
    cases: int

    @classmethod
    def fit(cls, shapes: np.ndarray) -> PointDistributionModel:
        """The model of aligned shapes, with every mode that has any variance (at most N - 1).

        Args:
            shapes: (N, M, 3), mm.

        Raises:
            ValueError: ``shapes`` is not (N, M, 3) with N >= 2.
        """
        shapes = np.asarray(shapes, dtype=np.float64)
        if shapes.ndim != 3 or shapes.shape[2] != 3 or len(shapes) < 2:
            raise ValueError(f"shapes must be (N, M, 3) with N >= 2, got {shapes.shape}")
        mean = shapes.mean(0)
        _, singular, vt = np.linalg.svd((shapes - mean).reshape(len(shapes), -1), full_matrices=False)
        keep = singular[: len(shapes) - 1] > 1e-9 * max(singular[0], np.linalg.norm(mean - mean.mean(0)))  # the rest is rounding
        modes = vt[: len(keep)][keep]
        # the sign of a singular vector is the library's whim: make its largest entry positive
        largest = modes[np.arange(len(modes)), np.abs(modes).argmax(1)]
        modes = modes * np.sign(largest)[:, None]
        deviations = singular[: len(keep)][keep] / np.sqrt(len(shapes) - 1)
        return cls(mean, modes.reshape(len(modes), *mean.shape), deviations, len(shapes))

    def project(self, shapes: np.ndarray, modes: int | None = None) -> np.ndarray:
        """Scores (..., K) in mm of aligned shapes (..., M, 3); divide by ``deviations`` to whiten. ``modes``: only so many."""
        offset = np.asarray(shapes, dtype=np.float64) - self.mean
        return offset.reshape(*offset.shape[:-2], -1) @ self.modes[:modes].reshape(-1, self.mean.size).T

    def reconstruct(self, scores: np.ndarray) -> np.ndarray:
        """Shapes (..., M, 3) of scores (..., K'); modes beyond K' are zero."""
        scores = np.asarray(scores, dtype=np.float64)
        return self.mean + np.tensordot(scores, self.modes[: scores.shape[-1]], axes=1)

    def approximate(
        self, points: np.ndarray, modes: int | None = None, scaling: bool = False, shrinkage: float = 1.0
    ) -> tuple[np.ndarray, Similarity]:
        """What the model makes of a shape anywhere in space.

        Args:
            points: (M, 3), mm, in any pose.
            modes: number of modes; all by default.
            scaling: whether the model was made of shapes without size.
            shrinkage: what is left of the scores; less than 1 draws the shape towards the mean.

        Returns:
            the shape (M, 3) of the model in the pose of ``points``, and the motion from there to the model's frame.
        """
        motion = fit_similarity(points, self.mean, scaling)
        return motion.inverse().apply(self.reconstruct(shrinkage * self.project(motion.apply(points), modes))), motion

    def explained(self) -> np.ndarray:
        """Share of the variance that the first 1, 2, ... K modes hold (compactness), (K,).

        Raises:
            ValueError: there is no variance, for all shapes are the same.
        """
        if not len(self.deviations):
            raise ValueError("all shapes are the same; a model of shapes needs some that differ")
        variance = np.cumsum(self.deviations**2)
        return variance / variance[-1]

    def modes_for(self, share: float) -> int:
        """The least number of modes that hold this share (0 to 1) of the variance."""
        return min(int(np.searchsorted(self.explained(), share - 1e-12)) + 1, len(self.deviations))

    def tensors(self, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
        """Mean, modes and deviations as tensors, for the buffers of a network."""
        return {name: torch.from_numpy(np.array(getattr(self, name))).to(dtype) for name in ("mean", "modes", "deviations")}

    def save(self, path: str | os.PathLike) -> None:
        """Write as ``.npz`` of plain arrays, atomically."""
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **{name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: str | os.PathLike) -> PointDistributionModel:
        """Read what :meth:`save` wrote; nothing in the file is executed.

        Raises:
            DataError: the file is missing or holds no such model.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: missing")
        try:
            with np.load(path, allow_pickle=False) as content:
                mean, modes, deviations, cases = (content[name] for name in _ARRAYS)
        except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: not a point distribution model") from error
        fits = mean.ndim == 2 and modes.shape[1:] == mean.shape and deviations.shape == modes.shape[:1] and cases.shape == ()
        if not fits or not all(np.isfinite(array).all() for array in (mean, modes, deviations)):
            raise DataError(f"{path}: a point distribution model whose arrays do not fit together or are not finite")
        return cls(mean, modes, deviations, int(cases))
