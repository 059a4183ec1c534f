"""Augmentation by shape (DeepSSM, Bhalodia et al. 2018): new shapes from a density of the training shapes, and real images warped to them.

Points are millimetres in the network's grid: relative to the centre of the grid, along the array axes, so that a point p lies at the
voxel p / spacing + (size - 1) / 2. Whoever makes the augmentation gives it the training cases alone; it knows no others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree

from tools.bundle.overrides import to_bool
from tools.data.checks import DataError
from tools.registration.displacement import jacobian_determinant, resize_ddf, warp
from tools.shape.pdm import PointDistributionModel
from tools.shape.procrustes import fit_similarity

__all__ = ["ShapeAugmentation", "ShapeSample", "warp_case", "warp_field"]

LATTICE = 3  # voxels between the places where the radial functions are evaluated
REACH = 2.0  # of the elastic part, in root-mean-square radii of the shape
RIDGE = 1e-8  # keeps the weights solvable where points coincide
TRIES = 50  # draws for one sample


class ShapeSample(NamedTuple):
    """A drawn shape.

    Attributes:
        case: number of the nearest real case, whose image is to be warped.
        points: (M, 3), mm.
        field: what warps it, see :func:`warp_field`.
    """

    case: int
    points: np.ndarray
    field: torch.Tensor


class ShapeAugmentation:
    """Shapes drawn from a kernel density of the training shapes' whitened scores.

    The density is a Gaussian of standard deviation h, in every whitened mode, around every training case, so that the scores' covariance
    grows by the factor 1 + h^2. h is by default the mean distance of a case to its nearest neighbour over sqrt(K), K being the number of
    modes: a sample then lies about as far from its case as cases lie from each other. (ShapeWorks' sampler has the same rule, but takes
    the squared distance over all modes as the deviation in each unwhitened one.) The real case of a sample is the nearest in
    whitened scores, i.e. by Mahalanobis' distance.

    A sample whose field (:func:`warp_field`) folds, or of which a point leaves the grid, is thrown away and drawn anew.

    Args:
        points: of the training cases, (N, M, 3) mm in the grid.
        size: grid in voxels, (D, H, W).
        spacing: of the grid, (3,) mm.
        modes: number of modes, or the share (a float up to 1) of the variance that they hold.
        bandwidth: h; None for the rule above.
        residual: whether a sample keeps what the modes leave of its real case; otherwise it is made of the modes alone, as in DeepSSM,
            and the warp has to take the case's detail away.
        folding: share of the grid's voxels that may have a Jacobian determinant of zero or less.
        seed: of all samples.

    Raises:
        DataError: ``points`` is not (N, M, 3) with N >= 3 and M >= 4, not finite or all of one shape; there are not so many modes; the
            bandwidth is not positive; ``folding`` is no share.
        ValueError: a side of the grid has fewer than three voxels; the spacing is not positive.
    """

    def __init__(
        self,
        points: np.ndarray,
        size: Sequence[int],
        spacing: Sequence[float],
        modes: int | float = 0.95,
        bandwidth: float | None = None,
        residual: bool = True,
        folding: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.points = np.asarray(points, dtype=np.float64)
        if self.points.ndim != 3 or self.points.shape[0] < 3 or self.points.shape[1] < 4 or self.points.shape[2] != 3:
            raise DataError(f"drawn shapes: points must be (N, M, 3) with N >= 3 and M >= 4, got {self.points.shape}")
        if not np.isfinite(self.points).all():
            raise DataError("drawn shapes: points must be finite")
        self.size, self.spacing = _grid(size, spacing)
        if not isinstance(folding, (int, float)) or not 0 <= folding <= 1:
            raise DataError(f"drawn shapes: folding must be a share in [0, 1], got {folding}")
        self.model = PointDistributionModel.fit(self.points)
        if not len(self.model.deviations):
            raise DataError("drawn shapes: points are all of one shape")
        self.modes = _mode_count(self.model, modes)
        self.scores = self.model.project(self.points, self.modes) / self.model.deviations[: self.modes]
        if bandwidth is None:
            bandwidth = cKDTree(self.scores).query(self.scores, k=2)[0][:, 1].mean() / math.sqrt(self.modes)
        if not isinstance(bandwidth, (int, float)) or not bandwidth > 0:
            raise DataError(f"drawn shapes: bandwidth must be a positive number, got {bandwidth}")
        self.bandwidth, self.residual, self.folding, self.seed = float(bandwidth), to_bool(residual), folding, seed
        self._tree = cKDTree(self.scores)

    def sample(self, count: int, first: int = 0) -> list[ShapeSample]:
        """Samples ``first`` to ``first + count - 1`` of an endless row that the seed determines: what is drawn does not depend on how.

        Raises:
            DataError: nearly all drawn shapes fold or leave the grid.
            ValueError: ``count`` is negative.
        """
        if count < 0:
            raise ValueError(f"count must not be negative, got {count}")
        return [self._sample(number) for number in range(first, first + count)]

    def _sample(self, number: int) -> ShapeSample:
        generator = np.random.default_rng((self.seed, number))
        for _ in range(TRIES):
            case, points = self._draw(generator)
            if self._inside(case, points):
                field = warp_field(self.points[case], points, self.size, self.spacing)
                if float((jacobian_determinant(field) <= 0).double().mean()) <= self.folding:
                    return ShapeSample(case, points, field)
        raise DataError(
            f"{TRIES} shapes drawn one after the other fold or leave the grid: a bandwidth of {self.bandwidth:.2f} is too much, "
            "or the points do not correspond"
        )

    def _draw(self, generator: np.random.Generator) -> tuple[int, np.ndarray]:
        scores = self.scores[generator.integers(len(self.scores))] + self.bandwidth * generator.standard_normal(self.modes)
        case = int(self._tree.query(scores)[1])
        if not self.residual:
            return case, self.model.reconstruct(scores * self.model.deviations[: self.modes])
        change = (scores - self.scores[case]) * self.model.deviations[: self.modes]
        return case, self.points[case] + np.tensordot(change, self.model.modes[: self.modes], axes=1)

    def _inside(self, case: int, points: np.ndarray) -> bool:
        half = (np.array(self.size) - 1) / 2 * self.spacing
        # where a real case is cut by the grid's border, so may its samples be
        return bool((np.abs(points) <= np.maximum(half, np.abs(self.points[case]).max(0))).all())


def warp_field(
    points_from: np.ndarray | torch.Tensor,
    points_to: np.ndarray | torch.Tensor,
    size: Sequence[int],
    spacing: Sequence[float],
) -> torch.Tensor:
    """The smooth displacement that makes an image with a shape on ``points_from`` one with the shape on ``points_to``.

    It pulls back (:mod:`tools.registration.displacement`), so it leads from ``points_to`` to ``points_from``: the similarity that does so
    best in the sense of least squares, everywhere, and the rest by radial functions of compact support (Wendland's C2 function, 1995)
    that interpolate at the points and are zero far from the shape. They are evaluated on a lattice of about every third voxel, linear in
    between.

    Args:
        points_from: (M, 3), mm in the grid.
        points_to: (M, 3), likewise.
        size: grid in voxels, (D, H, W).
        spacing: of the grid, (3,) mm.

    Returns:
        (1, 3, D, H, W) float32, voxels, on the CPU.

    Raises:
        ValueError: the points are not two times (M, 3) with M >= 4, or not finite; a side of the grid has fewer than three voxels, or the
            spacing is not positive.
    """
    size, spacing = _grid(size, spacing)
    source, target = (np.asarray(torch.as_tensor(points).detach().cpu(), dtype=np.float64) for points in (points_from, points_to))
    if source.ndim != 2 or source.shape != target.shape or source.shape[1] != 3 or len(source) < 4:
        raise ValueError(f"expected two times the same points (M, 3), M >= 4, got {source.shape} and {target.shape}")
    if not np.isfinite(source).all() or not np.isfinite(target).all():
        raise ValueError("points must be finite")
    motion = fit_similarity(target, source, scaling=True)
    reach = REACH * max(float(np.sqrt(target.var(0).sum())), 1e-6)
    scaled = torch.from_numpy(target / reach)
    kernel = _wendland(torch.cdist(scaled, scaled))
    kernel.diagonal().add_(RIDGE)
    weights = torch.linalg.solve(kernel, torch.from_numpy(source - motion.apply(target)))

    coarse = [max(3, math.ceil((n - 1) / LATTICE) + 1) for n in size]
    step = (np.array(size) - 1) / (np.array(coarse) - 1) * spacing
    axes = [(np.arange(n) - (n - 1) / 2) * length for n, length in zip(coarse, step)]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    rest = _wendland(torch.cdist(torch.from_numpy(lattice / reach), scaled)) @ weights
    ddf = torch.from_numpy((motion.apply(lattice) - lattice) / step) + rest / torch.from_numpy(step)
    return resize_ddf(ddf.float().T.reshape(1, 3, *coarse), size)


def warp_case(image: torch.Tensor, label: torch.Tensor, field: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A real case made into one of another shape; what comes from outside the grid repeats its edge.

    Args:
        image: (1, D, H, W).
        label: one-hot or probability map (C, D, H, W) on the same grid; warped linearly, so it comes back as probabilities.
        field: (1, 3, D, H, W), voxels, see :func:`warp_field`.

    Returns:
        image (1, D, H, W) and label (C, D, H, W) in the image's type, on its device.

    Raises:
        ValueError: the three are not of one grid.
    """
    if image.ndim != 4 or label.ndim != 4 or image.shape[1:] != label.shape[1:] or field.shape != (1, 3, *image.shape[1:]):
        shapes = " and ".join(str(tuple(part.shape)) for part in (image, label, field))
        raise ValueError(f"expected image (1, D, H, W), label (C, D, H, W) and field (1, 3, D, H, W), got {shapes}")
    warped = warp(torch.cat((image, label.to(image)))[None], field.to(image.device))[0]
    return warped[: len(image)], warped[len(image) :]


def _wendland(radius: torch.Tensor) -> torch.Tensor:
    """(1 - r)^4 (4 r + 1) within r = 1, positive definite in three dimensions."""
    # squares in place: five times as fast as a power
    return (1 - radius).clamp_(min=0).square_().square_().mul_(4 * radius + 1)


def _grid(size: Sequence[int], spacing: Sequence[float]) -> tuple[tuple[int, int, int], np.ndarray]:
    size, spacing = tuple(int(n) for n in size), np.asarray(spacing, dtype=np.float64)
    if len(size) != 3 or min(size) < 3:
        raise ValueError(f"the grid must have three sides of at least 3 voxels, got {size}")
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise ValueError(f"spacing must be three positive numbers of mm, got {spacing.tolist()}")
    return size, spacing


def _mode_count(model: PointDistributionModel, modes: int | float) -> int:
    if isinstance(modes, float) and 0 < modes <= 1:
        modes = model.modes_for(modes)
    if isinstance(modes, bool) or not isinstance(modes, int) or not 1 <= modes <= len(model.deviations):
        raise DataError(f"drawn shapes: modes must be a share in (0, 1] or a number from 1 to {len(model.deviations)}, got {modes}")
    return modes
