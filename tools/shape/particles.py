"""ShapeWorks' ``.particles`` files: corresponding points as text, one ``x y z`` a line, LPS mm; line i is the same point in every case."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tools.data.checks import DataError
from tools.data.files import atomic_path
from tools.registration.fields import lps_affine

__all__ = ["check_world", "read_particle_set", "read_particles", "write_particles"]


def read_particles(path: str | os.PathLike, count: int | None = None) -> np.ndarray:
    """Read one file.

    Args:
        path: the file.
        count: the number of points it must have; None for any.

    Returns:
        (M, 3) float64, LPS mm.

    Raises:
        DataError: the file is missing, no text, empty, has another number of points, or a line without three finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: missing")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as text") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            x, y, z = map(float, line.split())
        except ValueError as error:
            raise DataError(f"{path}: line {number} holds no three numbers: {line.strip()[:60]}") from error
        rows.append((x, y, z))
    points = np.array(rows, dtype=np.float64).reshape(-1, 3)
    if not len(points):
        raise DataError(f"{path}: no points")
    if not np.isfinite(points).all():
        raise DataError(f"{path}: point {int(np.argmin(np.isfinite(points).all(1))) + 1} is not finite")
    if count is not None and len(points) != count:
        raise DataError(f"{path}: {len(points)} points, {count} are needed")
    return points


def read_particle_set(paths: Sequence[str | os.PathLike], count: int | None = None) -> np.ndarray:
    """Read files of one set: (N, M, 3) in the order of ``paths``, LPS mm.

    Raises:
        DataError: there is none, one cannot be read, or one has another number of points than ``count`` (by default the first's).
    """
    shapes: list[np.ndarray] = []
    for path in paths:
        shapes.append(read_particles(path, count))
        if count is None and len(shapes[-1]) != len(shapes[0]):
            raise DataError(f"{path}: {len(shapes[-1])} points, but {Path(paths[0]).name} has {len(shapes[0])}")
    if not shapes:
        raise DataError("no particle files given")
    return np.stack(shapes)


def write_particles(path: str | os.PathLike, points: np.ndarray) -> None:
    """Write points (M, 3) in LPS mm, atomically, to a ten-thousandth of a millimetre.

    Raises:
        DataError: the points are not finite.
        ValueError: they are not (M, 3).
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must be (M, 3), got {points.shape}")
    if not np.isfinite(points).all():
        raise DataError(f"{path}: the points to be written are not all finite")
    with atomic_path(path) as temporary:
        np.savetxt(temporary, points, fmt="%.4f")


def check_world(path: str | os.PathLike, points: np.ndarray, shape: Sequence[int], affine: np.ndarray, margin: float = 0.25) -> None:
    """Check that points lie in the world of an image.

    Args:
        path: where the points come from, for the message.
        points: (M, 3), LPS mm.
        shape: (X, Y, Z), voxels of the image.
        affine: (4, 4), voxel to RAS mm.
        margin: how far outside points may lie, as a share of the image's size.

    Raises:
        DataError: more than half of the points are farther away; the line says so where the points look like RAS.
    """

    def inside(candidate: np.ndarray) -> float:
        inverse = np.linalg.inv(lps_affine(affine))
        share = (candidate @ inverse[:3, :3].T + inverse[:3, 3] + 0.5) / np.asarray(shape)
        return float(((share > -margin) & (share < 1 + margin)).all(1).mean())

    if inside(points) < 0.5:
        flipped = points * np.array([-1.0, -1.0, 1.0])
        hint = "; they would fit as RAS, but particle files are LPS mm" if inside(flipped) >= 0.5 else ""
        raise DataError(f"{path}: the points lie outside their image (wrong world){hint}")
