"""The smooth invertible map from a joint's template to one subject, and back.

A subject is template o phi^-1 with phi = pose o exp(v). The stationary velocity v joins the bones' own affine movements, blended
smoothly between them (log-Euclidean polyaffine transforms, Arsigny et al., JMIV 2009), and a few smooth modes of shape that
are the same for all subjects of a joint. exp(v) is integrated point by point, so phi and its inverse are known anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import logm
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from tools.data.phantoms.anatomy import Joint

__all__ = ["SubjectMap", "draw_subject_map"]

_GRID_SPACING = 4.0  # mm; trilinear between
_GRID_EXTENT = 100.0  # mm from the centre; velocities go on unchanged beyond
_BLEND = 5.0  # mm over which one bone's movement turns into the next one's
# number of shape modes, and the width and amplitude of each as shares of the field of view's longest side
_MODES = ((6, 0.14, 0.0078), (6, 0.08, 0.0022))
_POSE_ROTATION = (5.0, 5.0, 8.0)  # degrees
_POSE_SHIFT = 0.022  # of the field of view
_SIZE = 0.05  # logarithm of the subject's size
_STEPS = 8


@dataclass(frozen=True)
class SubjectMap:
    """phi of one subject: template mm -> subject mm (world, RAS).

    Attributes:
        rotation: (3, 3) of the pose.
        translation: (3,) mm of the pose.
        velocity: (1, 3, G, G, G) mm per unit time on the template's grid.
    """

    rotation: np.ndarray
    translation: np.ndarray
    velocity: torch.Tensor

    def to_subject(self, points: np.ndarray) -> np.ndarray:
        """Template points (N, 3) in mm to the subject's world, mm."""
        return self._flow(points, 1.0) @ self.rotation.T + self.translation

    def to_template(self, points: np.ndarray) -> np.ndarray:
        """World points (N, 3) of the subject in mm to the template, mm: the inverse of :meth:`to_subject`."""
        return self._flow((np.asarray(points, dtype=np.float64) - self.translation) @ self.rotation, -1.0)

    def _flow(self, points: np.ndarray, sign: float) -> np.ndarray:
        position = torch.as_tensor(np.asarray(points), dtype=torch.float32)
        step = sign / _STEPS

        def rate(where: torch.Tensor) -> torch.Tensor:
            grid = (where / _GRID_EXTENT).flip(-1)[None, None, None]
            return F.grid_sample(self.velocity, grid, padding_mode="border", align_corners=True)[0, :, 0, 0].T

        for _ in range(_STEPS):  # classical Runge-Kutta
            k1 = rate(position)
            k2 = rate(position + 0.5 * step * k1)
            k3 = rate(position + 0.5 * step * k2)
            k4 = rate(position + step * k3)
            position = position + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return position.numpy()


def _grid_points() -> tuple[np.ndarray, tuple[int, int, int]]:
    axis = np.arange(-_GRID_EXTENT, _GRID_EXTENT + 1, _GRID_SPACING, dtype=np.float32)
    points = np.stack([a.ravel() for a in np.meshgrid(axis, axis, axis, indexing="ij")])
    return points, (len(axis),) * 3


@lru_cache(maxsize=4)
def _template_fields(joint: Joint) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bone weights (K, G^3), bone centres (K, 3) in mm and shape modes (M, 3, G^3) in mm of a joint."""
    points, shape = _grid_points()
    distances = np.stack(joint.shapes(points)[: len(joint.bones)])
    exponent = -distances / _BLEND
    weights = np.exp(exponent - exponent.max(0))
    weights /= weights.sum(0)
    half = np.asarray(joint.field_of_view)[:, None] / 2
    middle = np.asarray(joint.centre)[:, None]
    inside = (distances < 0) & (np.abs(points - middle) < half).all(0)
    centres = np.stack([points[:, mask].mean(1) for mask in inside])
    generator = np.random.default_rng(joint.mode_seed)
    longest = max(joint.field_of_view)
    modes = []
    for count, width, amplitude in _MODES:
        for _ in range(count):
            noise = generator.standard_normal((3, *shape))
            sigma = (0, *[width * longest / _GRID_SPACING] * 3)
            field = gaussian_filter(noise, sigma, mode="wrap").reshape(3, -1)
            modes.append(amplitude * longest * field / np.sqrt((field**2).mean()))
    return weights, centres, np.stack(modes).astype(np.float32)


def draw_subject_map(joint: Joint, generator: np.random.Generator) -> SubjectMap:
    """Draw a subject: movement of its bones, scores of the shape modes, size and pose, all from bounded distributions."""
    weights, centres, modes = _template_fields(joint)
    points, shape = _grid_points()
    points = points.astype(np.float64)

    def uniform(amplitude: float | tuple[float, ...], size: int | None = None) -> np.ndarray:
        return np.asarray(amplitude) * generator.uniform(-1, 1, size if size is not None else np.shape(amplitude))

    scores = np.clip(generator.standard_normal(len(modes)), -2, 2)
    velocity = np.tensordot(scores, modes, 1)
    size = np.eye(3) * uniform(_SIZE)
    for weight, centre, motion in zip(weights, centres, joint.motion):
        rotation = Rotation.from_rotvec(uniform(motion.rotation), degrees=True).as_matrix()
        generating = np.real(logm(rotation)) + np.diag(uniform(motion.log_scale, 3))
        velocity += weight * (generating @ (points - centre[:, None]) + uniform(motion.translation)[:, None])
    velocity += size @ points
    pose = Rotation.from_rotvec(uniform(_POSE_ROTATION), degrees=True).as_matrix()
    shift = uniform(tuple(_POSE_SHIFT * side for side in joint.field_of_view)) - pose @ np.asarray(joint.centre)
    field = torch.as_tensor(velocity.reshape(1, 3, *shape), dtype=torch.float32)
    return SubjectMap(pose, shift, field)
