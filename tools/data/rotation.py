"""Volumes turned about their centre: the test of a registration on poses it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from tools.registration.fields import lps_affine

__all__ = ["random_rotation", "rotate_points", "rotate_volume"]


def random_rotation(degrees: float, generator: np.random.Generator) -> np.ndarray:
    """Rotation matrix (3, 3) about an axis of uniform direction by an angle uniform in [0, ``degrees``].

    Raises:
        ValueError: ``degrees`` is not within 0 and 180.
    """
    if not 0 <= degrees <= 180:
        raise ValueError(f"a rotation is by 0 to 180 degrees, got {degrees}")
    axis = generator.normal(size=3)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis) * generator.uniform(0, degrees), degrees=True).as_matrix()


def rotate_points(points: np.ndarray, shape: Sequence[int], affine: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Where points of a volume lie once :func:`rotate_volume` has turned it: (N, 3) LPS mm to (N, 3) LPS mm.

    Args:
        points: (N, 3), LPS mm.
        shape: (X, Y, Z), voxels of the volume before.
        affine: (4, 4), its voxels to RAS mm, without shear.
        rotation: (3, 3), in mm along the volume's own axes.
    """
    affine = lps_affine(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes, centre = affine[:3, :3] / spacing, affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]
    return (points - centre) @ axes @ rotation.T @ axes.T + centre


def rotate_volume(volume: np.ndarray, affine: np.ndarray, rotation: np.ndarray, is_label: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Turn the content of a volume about the centre of its grid; the new grid has the old spacing and axes and holds all of it.

    Args:
        volume: (X, Y, Z).
        affine: (4, 4), voxel to RAS mm, without shear.
        rotation: (3, 3), in mm along the volume's own axes.
        is_label: label maps are interpolated linearly label by label, and the largest wins; around them is 0. Images are
            interpolated linearly, and around them is their minimum.

    Returns:
        the turned volume, float32 or the labels' dtype, and its affine.

    Raises:
        ValueError: the volume is not 3-D.
    """
    if volume.ndim != 3:
        raise ValueError(f"expected a volume (X, Y, Z), got {volume.shape}")
    affine = np.asarray(affine, dtype=np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    extent = np.abs(rotation) @ (np.array(volume.shape) * spacing)
    shape = np.ceil(extent / spacing - 1e-6).astype(int)
    old_centre, new_centre = (np.array(volume.shape) - 1) / 2, (shape - 1) / 2
    # new voxel -> mm about the centre -> turned back -> old voxel
    matrix = (rotation.T * spacing) / spacing[:, None]
    offset = old_centre - matrix @ new_centre
    new_affine = affine.copy()
    new_affine[:3, 3] += affine[:3, :3] @ (old_centre - new_centre)

    def turned(values: np.ndarray, around: float) -> np.ndarray:
        # "grid-constant" interpolates across the border, where "constant" would drop it by rounding
        values = values.astype(np.float32)
        return affine_transform(values, matrix, offset, tuple(shape), order=1, mode="grid-constant", cval=around)

    if not is_label:
        return turned(volume, float(volume.min())), new_affine
    labels = np.union1d([0], np.unique(volume))
    best = np.argmax([turned(volume == label, float(label == 0)) for label in labels], axis=0)
    return labels[best].astype(volume.dtype), new_affine
