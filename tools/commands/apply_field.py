"""``python -m tools apply-field``: carry images, labels, points and meshes along a displacement field.

A field ``<moving>_to_<fixed>_ddf.nii.gz`` belongs to an image pair. Its direction is easily confused, for a field pulls images one
way and pushes points the other. The command therefore speaks of spaces:

- by default everything goes **from the moving into the fixed space**: an image is resampled with the field; points and vertices are
  moved with the inverse of the field, solved point by point;
- with ``--inverse`` everything goes **from the fixed into the moving space**: points are moved with the field itself; an image is
  resampled with the inverse field on the grid of ``--reference``, usually the moving image.

So a segmentation and the mesh of the same bone, given the same options, land in the same place.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.data.checks import DataError, read_nifti
from tools.data.files import write_nifti
from tools.registration.fields import invert_field, invert_points, resample_field, transform_points
from tools.registration.itk_field import read_itk_field, resample
from tools.registration.shapes import MESHES, POINTS, move_mesh, move_points

__all__ = ["apply_field"]

IMAGES = (".nii.gz", ".nii")
MODES = ("auto", "linear", "nearest")
TOLERANCE = 0.05  # mm; beyond it a point has no place in the fixed space


def apply_field(
    field: str,
    input: str,
    output: str,
    inverse: bool = False,
    reference: str | None = None,
    label: bool = False,
    mode: str = "auto",
) -> None:
    """Carry images, labels, points and meshes from the moving into the fixed space of a displacement field.

    Images (.nii .nii.gz) are resampled; points (.particles .csv .fcsv) and meshes (.vtk .vtp .ply .stl .obj) are moved, their
    coordinates being LPS mm. With --inverse everything goes from the fixed into the moving space.

    Args:
        field: displacement field as registration writes it (ITK vector image, LPS mm, on the fixed image's grid).
        input: a file, or several separated by commas.
        output: a file; a folder when there are several inputs (each keeps its name).
        inverse: carry things of the fixed space into the moving space.
        reference: image that gives the output grid of images. By default the field's own grid; needed for images with --inverse,
            where it usually is the moving image.
        label: the images are label maps: the same as --mode nearest.
        mode: interpolation of images: linear, nearest, or auto: nearest for volumes of at most 64 different values, all whole numbers.

    Raises:
        DataError: an input that cannot be used, in one line that names the file.
    """
    if mode not in MODES:
        raise DataError(f"--mode must be one of {', '.join(MODES)}, got {mode!r}")
    sources = [Path(input)] if Path(input).exists() else [Path(name) for name in input.split(",") if name]
    pairs = _destinations(sources, Path(output))
    displacement, affine = read_itk_field(field)
    grid_field = None
    for source, destination in pairs:
        kind = _kind(source)
        if kind in IMAGES:
            if grid_field is None:
                grid_field, lost = _field_of_images(displacement, affine, inverse, reference, source)
            done = _carry_image(source, destination, *grid_field, "nearest" if label else mode)
            print(f"{destination}: {done}{_lost(lost, 'voxels')}")
        else:
            mover = _Mover(displacement, affine, inverse)
            count = (move_mesh if kind in MESHES else move_points)(source, destination, mover)
            print(f"{destination}: {count} points{_lost(mover.lost, 'points')}")


def _lost(count: int, what: str) -> str:
    return f", {count} {what} have no exact place there (the field folds)" if count else ""


class _Mover:
    """Moves points between the spaces and remembers how many the field does not reach."""

    def __init__(self, displacement: np.ndarray, affine: np.ndarray, inverse: bool) -> None:
        self.displacement, self.affine, self.inverse, self.lost = displacement, affine, inverse, 0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        if self.inverse:
            return transform_points(points, self.displacement, self.affine)
        moved, error = invert_points(points, self.displacement, self.affine)
        self.lost = int((error > TOLERANCE).sum())
        return moved


def _field_of_images(
    displacement: np.ndarray, affine: np.ndarray, inverse: bool, reference: str | None, source: Path
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """The pull-back field for images with the affine of the grid it is on, and the number of voxels that it does not reach."""
    if reference is None:
        if inverse:
            raise DataError(f"{source}: an image needs --reference with --inverse, usually the moving image")
        return (displacement, affine), 0
    volume, grid = read_nifti(Path(reference))
    if not inverse:
        return (resample_field(displacement, affine, volume.shape, grid), grid), 0
    field, lost = invert_field(displacement, affine, volume.shape, grid)
    return (field, grid), lost


def _carry_image(source: Path, destination: Path, displacement: np.ndarray, grid: np.ndarray, mode: str) -> str:
    volume, affine = read_nifti(source)
    if not np.isfinite(volume).all():
        raise DataError(f"{source}: voxels that are not finite")
    if mode == "auto":
        mode = "nearest" if _looks_like_labels(volume) else "linear"
    write_nifti(destination, resample(volume, affine, displacement, grid, mode), grid)
    return f"{mode} interpolation"


def _looks_like_labels(volume: np.ndarray) -> bool:
    values = np.unique(volume)
    return len(values) <= 64 and bool((values == np.round(values)).all())


def _destinations(sources: list[Path], output: Path) -> list[tuple[Path, Path]]:
    """Check all names before any work starts."""
    if not sources:
        raise DataError("--input names no file")
    for source in sources:
        _kind(source)
        if not source.is_file():
            raise DataError(f"{source}: missing")
    folder = output.is_dir() or not output.name.lower().endswith(IMAGES + POINTS + MESHES)
    if len(sources) > 1 and not folder:
        raise DataError(f"{output}: several inputs need a folder as --output")
    pairs = [(source, output / source.name if folder else output) for source in sources]
    if len({destination for _, destination in pairs}) < len(pairs):
        raise DataError(f"{output}: two inputs of the same name would overwrite each other")
    for source, destination in pairs:
        if any(destination.resolve() == other.resolve() for other in sources):
            raise DataError(f"{destination}: would overwrite an input")
        groups = [group for group in (IMAGES, MESHES) if _kind(source) in group] or [(_kind(source),)]
        if _kind(destination) not in groups[0]:
            raise DataError(f"{destination}: {source.name} is written as one of {' '.join(groups[0])}")
    return pairs


def _kind(path: Path) -> str:
    for suffix in IMAGES + POINTS + MESHES:
        if path.name.endswith(suffix):
            return suffix
    raise DataError(f"{path}: unknown extension, known are {' '.join(IMAGES + POINTS + MESHES)}")
