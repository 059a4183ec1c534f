"""The frame the network predicts in: millimetres from the centre of the plan's grid, along the grid's axes.

It follows from the image's header alone; nothing is aligned by a truth.
"""

from __future__ import annotations

import numpy as np

from tools.data.plan import Plan
from tools.registration.fields import lps_affine

__all__ = ["frame_affine", "to_frame", "to_world"]


def to_frame(points: np.ndarray, affine: np.ndarray, plan: Plan) -> np.ndarray:
    """Points (..., 3) from LPS mm to the frame.

    Args:
        points: in the world of the image.
        affine: (4, 4), voxel of the network's grid to RAS mm (of the preprocessed image).
        plan: the plan.
    """
    inverse = np.linalg.inv(lps_affine(affine))
    voxels = points @ inverse[:3, :3].T + inverse[:3, 3]
    return (voxels - (np.array(plan.size) - 1) / 2) * np.array(plan.spacing)


def to_world(points: np.ndarray, affine: np.ndarray, plan: Plan) -> np.ndarray:
    """Points (..., 3) from the frame to LPS mm; the inverse of :func:`to_frame`."""
    world = lps_affine(affine)
    voxels = np.asarray(points, dtype=np.float64) / np.array(plan.spacing) + (np.array(plan.size) - 1) / 2
    return voxels @ world[:3, :3].T + world[:3, 3]


def frame_affine(plan: Plan) -> np.ndarray:
    """(4, 4), voxel of the grid to the frame, as RAS: surfaces of label maps with it (:mod:`tools.shape.surfaces`) lie in the frame."""
    affine = np.diag([*plan.spacing, 1.0])
    affine[:3, 3] = -np.array(plan.spacing) * (np.array(plan.size) - 1) / 2
    return lps_affine(affine)
