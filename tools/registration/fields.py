"""Displacement fields in the world: what a field does to points, and its inverse.

A physical field is an array (D, H, W, 3) of LPS millimetres on a grid with a RAS affine (voxel to mm, as nibabel gives it). It pulls
images back: the fixed image's point x looks at x + d(x) of the moving image, so it carries *points* from fixed to moving, and
moving points need its inverse. Between voxels a field is linear; outside its grid its affine part goes on and the rest keeps
its border value.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from tools.registration.displacement import sample

__all__ = ["grid_points", "invert_field", "invert_points", "lps_affine", "resample_field", "transform_points"]

MAX_ITERATIONS = 60


def lps_affine(affine: np.ndarray) -> np.ndarray:
    """Affine to RAS mm from one to LPS mm, and the reverse: (4, 4) to (4, 4)."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, dtype=np.float64)


def grid_points(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """World coordinates of all voxel centres, (D * H * W, 3), in the world of ``affine``."""
    voxels = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    return _apply(affine, voxels)


def transform_points(points: np.ndarray, displacement: np.ndarray, field_affine: np.ndarray) -> np.ndarray:
    """Carry points of the fixed space into the moving space: x + d(x).

    Args:
        points: (N, 3), LPS mm.
        displacement: (D, H, W, 3), LPS mm.
        field_affine: (4, 4), voxel of the field to RAS mm.

    Returns:
        (N, 3), LPS mm.
    """
    return _Map(displacement, field_affine).forward(points)


def invert_points(
    points: np.ndarray, displacement: np.ndarray, field_affine: np.ndarray, tolerance: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """Carry points of the moving space into the fixed space: for each y the x with x + d(x) = y, by a damped Newton iteration.

    Args:
        points: (N, 3), LPS mm.
        displacement: (D, H, W, 3), LPS mm.
        field_affine: (4, 4), voxel of the field to RAS mm.
        tolerance: mm; a point is done when x + d(x) is as near as this to y.

    Returns:
        the points (N, 3) in LPS mm, and the remaining errors |x + d(x) - y| (N,) in mm. An error above the tolerance marks a
        point that the field does not reach, as happens at folds.
    """
    return _Map(displacement, field_affine).inverse(points, tolerance)


def resample_field(
    displacement: np.ndarray, field_affine: np.ndarray, target_shape: tuple[int, int, int], target_affine: np.ndarray
) -> np.ndarray:
    """The same field on another grid: (D', H', W', 3) in LPS mm. Affines are (4, 4), voxel to RAS mm."""
    points = grid_points(target_shape, lps_affine(target_affine))
    moved = transform_points(points, displacement, field_affine)
    return (moved - points).reshape(*target_shape, 3).astype(np.float32)


def invert_field(
    displacement: np.ndarray,
    field_affine: np.ndarray,
    target_shape: tuple[int, int, int],
    target_affine: np.ndarray,
    tolerance: float = 1e-2,
) -> tuple[np.ndarray, int]:
    """The inverse field on a grid, usually the moving image's: it pulls images of the fixed space into the moving space.

    Args:
        displacement: (D, H, W, 3), LPS mm.
        field_affine: (4, 4), voxel of the field to RAS mm.
        target_shape: the grid of the inverse.
        target_affine: (4, 4), voxel of that grid to RAS mm.
        tolerance: mm, see :func:`invert_points`.

    Returns:
        (D', H', W', 3), LPS mm; and the number of voxels that the field does not reach, which take the nearest place found.
    """
    points = grid_points(target_shape, lps_affine(target_affine))
    origin, error = invert_points(points, displacement, field_affine, tolerance)
    return (origin - points).reshape(*target_shape, 3).astype(np.float32), int((error > tolerance).sum())


def _apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    affine = np.asarray(affine, dtype=np.float64)
    return points @ affine[:3, :3].T + affine[:3, 3]


class _Map:
    """The map from fixed voxels to moving mm, as affine part plus residual field."""

    def __init__(self, displacement: np.ndarray, field_affine: np.ndarray) -> None:
        world = lps_affine(field_affine)
        self.to_voxel, self.to_world, self.affine = np.linalg.inv(world), world, world.copy()
        residual = np.array(np.moveaxis(displacement, -1, 0), dtype=np.float64, order="C")
        self.last = np.array(residual.shape[1:]) - 1
        # Least squares for d = (p - centre) L + mean: on a whole grid the axes are orthogonal, so that each is fitted on its own.
        mean, slope = residual.mean((1, 2, 3)), np.zeros((3, 3))
        places = np.meshgrid(*(np.arange(last + 1) - last / 2 for last in self.last), indexing="ij", sparse=True)
        for axis in np.flatnonzero(self.last):
            slope[axis] = (residual * places[axis]).mean((1, 2, 3)) / (places[axis] ** 2).mean()
        linear = world[:3, :3] + slope.T
        if abs(np.linalg.det(linear)) >= 1e-6 * abs(np.linalg.det(world[:3, :3])):
            self.affine[:3, :3] = linear
            self.affine[:3, 3] += mean - self.last / 2 @ slope
            residual -= mean[:, None, None, None]
            for axis in np.flatnonzero(self.last):
                residual -= slope[axis][:, None, None, None] * places[axis]
        self.residual = torch.from_numpy(residual)[None]

    @cached_property
    def slopes(self) -> torch.Tensor:
        """Derivatives of the residual field, (1, 9, D, H, W): channel 3 i + j is that of component i along voxel axis j."""
        slopes = torch.zeros(1, 9, *self.residual.shape[2:], dtype=torch.float64)
        for axis, last in enumerate(self.last):
            if last:
                slopes[:, axis::3] = torch.gradient(self.residual, dim=axis + 2)[0]
        return slopes

    def forward(self, points: np.ndarray) -> np.ndarray:
        return self._moving(_apply(self.to_voxel, np.asarray(points, dtype=np.float64)))

    def inverse(self, points: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
        goal = np.asarray(points, dtype=np.float64)
        voxels = _apply(np.linalg.inv(self.affine), goal)
        missing = goal - self._moving(voxels)
        error = np.linalg.norm(missing, axis=1)
        length = np.ones(len(goal))
        for _ in range(MAX_ITERATIONS):
            active = np.flatnonzero(error > tolerance)
            if not active.size:
                break
            step = np.linalg.solve(self._jacobian(voxels[active]), missing[active][..., None])[..., 0]
            trial = voxels[active] + length[active, None] * step
            trial_missing = goal[active] - self._moving(trial)
            trial_error = np.linalg.norm(trial_missing, axis=1)
            better = trial_error < error[active]
            accepted = active[better]
            voxels[accepted], missing[accepted], error[accepted] = trial[better], trial_missing[better], trial_error[better]
            length[active] = np.where(better, np.minimum(1, 2 * length[active]), length[active] / 2)
        return _apply(self.to_world, voxels), error

    def _moving(self, voxels: np.ndarray) -> np.ndarray:
        return _apply(self.affine, voxels) + _at(self.residual, voxels)

    def _jacobian(self, voxels: np.ndarray) -> np.ndarray:
        """Derivative of :meth:`_moving`, (N, 3, 3); the affine part alone outside the grid and where the field nearly folds."""
        linear = self.affine[:3, :3]
        jacobian = linear + _at(self.slopes, voxels).reshape(-1, 3, 3)
        plain = ((voxels < 0) | (voxels > self.last)).any(1) | (np.linalg.det(jacobian) / np.linalg.det(linear) < 0.05)
        jacobian[plain] = linear
        return jacobian


def _at(field: torch.Tensor, voxels: np.ndarray) -> np.ndarray:
    """Values of a field (1, C, D, H, W) at voxel positions (N, 3): (N, C), linear, border value outside."""
    position = torch.from_numpy(np.ascontiguousarray(voxels.T)).view(1, 3, -1, 1, 1)
    return sample(field, position)[0, :, :, 0, 0].T.numpy()
