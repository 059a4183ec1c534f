"""Look at every input before work starts, so that a run never dies of bad data hours later.

Each check reads the file for real and stops at the first fault with a :class:`DataError`: one line that names file and fault.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np

if TYPE_CHECKING:
    from tools.data.decathlon import Case, Dataset

__all__ = [
    "DataError",
    "check_dataset",
    "check_image",
    "check_images",
    "check_label",
    "check_pair",
    "first_line",
    "read_json",
    "read_nifti",
]

AFFINE_TOLERANCE = 1e-3  # mm; what headers lose by storing float32


class DataError(ValueError):
    """Input that cannot be used; the message is one line that names the file and the fault."""


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file, and fail in words.

    Raises:
        DataError: the file is missing, unreadable or no JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: missing or not readable") from error
    except ValueError as error:
        raise DataError(f"{path}: not readable as JSON ({error})") from error


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one 3-D volume whole, and fail in words.

    Args:
        path: a ``.nii.gz`` or ``.nii`` file; trailing axes of length one are dropped.

    Returns:
        the array, (X, Y, Z) in the file's own axis order and, unless the header scales it, type; and the affine (4, 4), voxel
        index to RAS millimetres.

    Raises:
        DataError: the file is missing, truncated, corrupt, no NIfTI, not 3-D, not of real numbers, or its affine is singular.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: missing")
    try:
        content = path.read_bytes()
        if path.name.endswith(".gz"):
            # Decompressing all of it checks the checksum too, which nibabel's lazy reading does not.
            content = gzip.decompress(content)
        header_size = {int.from_bytes(content[:4], order) for order in ("little", "big")}
        image = (nib.Nifti2Image if 540 in header_size else nib.Nifti1Image).from_bytes(content)
        shape = image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3:
            raise DataError(f"{path}: {len(shape)}-D (shape {_shape(image.shape)}); a single 3-D volume is needed")
        if image.get_data_dtype().kind not in "iuf":
            raise DataError(f"{path}: voxels of type {image.get_data_dtype()}; real numbers are needed")
        array = np.asanyarray(image.dataobj).reshape(shape)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated or corrupt ({first_line(error)})") from error
    except DataError:
        raise
    except (OSError, ValueError, TypeError, nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise DataError(f"{path}: not readable as NIfTI, or truncated ({first_line(error)})") from error
    affine = np.asarray(image.affine, dtype=np.float64)
    if 0 in shape:
        raise DataError(f"{path}: empty volume (shape {_shape(shape)})")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(f"{path}: the affine in the header is singular or not finite")
    return array, affine


def check_image(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """Check one image: readable, 3-D, finite, not constant, and not empty but for a hundredth of its voxels.

    Returns:
        its shape and its affine (4, 4), voxel index to RAS millimetres.

    Raises:
        DataError: see above and :func:`read_nifti`.
    """
    array, affine = read_nifti(path)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{path}: {int(np.count_nonzero(~np.isfinite(array)))} voxels are NaN or infinite")
    if array.min() == array.max():
        raise DataError(f"{path}: constant image, every voxel is {array.flat[0]:g}")
    common = np.median(array)
    share = np.count_nonzero(array == common) / array.size
    if share > 0.99:  # the percentiles that are to become 0 and 1 would be one value
        raise DataError(f"{path}: {100 * share:.2f} % of the voxels are {common:g}; crop the image to what it shows")
    return array.shape, affine


def check_label(
    path: Path, values: Collection[int], shape: tuple[int, ...] | None = None, affine: np.ndarray | None = None, image: Path | None = None
) -> set[int]:
    """Check one label map, and that it lies on the grid of its image.

    Args:
        path: the label map.
        values: label values the data set knows, with the background.
        shape: shape of the image, or None to compare nothing.
        affine: affine of the image (4, 4), or None to compare nothing.
        image: path of the image, for the message.

    Returns:
        the label values that occur.

    Raises:
        DataError: the map is not on the image's grid (affines may differ by 1e-3), has non-integer or unknown values, or is all
            background.
    """
    array, label_affine = read_nifti(path)
    of = "" if image is None else f" {image.name}"
    if shape is not None and array.shape != tuple(shape):
        raise DataError(f"{path}: shape {_shape(array.shape)}, but its image{of} has {_shape(shape)}")
    if affine is not None:
        difference = np.abs(label_affine - affine).max()
        if difference > AFFINE_TOLERANCE:
            raise DataError(f"{path}: its affine differs from that of its image{of} by up to {difference:.3g}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(f"{path}: label values are NaN or infinite")
        fractional = array[array != np.rint(array)]
        if fractional.size:
            raise DataError(f"{path}: label values must be integers, found {fractional[0]:g}")
    found = _occurring(array)
    unknown = sorted(found - set(values))
    if unknown:
        raise DataError(f"{path}: label value {_few(unknown)} not in the data set's {sorted(values)}")
    if not found - {0}:
        raise DataError(f"{path}: empty label, every voxel is background")
    return found


def check_pair(image: Path, label: Path | None, values: Collection[int]) -> np.ndarray:
    """Check an image and, where there is one, its label map of these values: :func:`check_image`, :func:`check_label`.

    Returns:
        the image's affine (4, 4), voxel index to RAS millimetres.

    Raises:
        DataError: see there.
    """
    shape, affine = check_image(image)
    if label is not None:
        check_label(label, values, shape, affine, image)
    return affine


def check_images(cases: Iterable[Case]) -> None:
    """Check the images to predict on: at least one, every one sound, no two of the same name.

    Raises:
        DataError: see :func:`check_image`.
    """
    cases = list(cases)
    if not cases:
        raise DataError("no image given")
    _check_names(cases)
    for case in cases:
        check_image(case.image)


def check_dataset(
    dataset: Dataset,
    need_labels: int = 1,
    need_cases: int = 2,
    need_particles: bool = False,
) -> None:
    """Check every training case of a data set; stop at the first fault.

    Args:
        dataset: what :func:`tools.data.decathlon.read_dataset` read.
        need_labels: least number of labelled cases.
        need_cases: least number of cases.
        need_particles: whether every labelled case must have a particle file (its content is checked by its reader).

    Raises:
        DataError: the first fault found, in a line naming the file.
    """
    description = dataset.root / "dataset.json"
    labelled = sum(case.label is not None for case in dataset.cases)
    if len(dataset.cases) < need_cases:
        raise DataError(f"{description}: too few cases: {len(dataset.cases)}, at least {need_cases} are needed")
    if labelled < need_labels:
        raise DataError(f"{description}: too few labelled cases: {labelled}, at least {need_labels} are needed")
    _check_names(dataset.cases)
    for case in dataset.cases:
        if need_particles and case.label is not None and case.particles is None:
            raise DataError(f"{case.image}: no particle file (dataset.json names none, particles/{case.name}.particles is missing)")
        if case.particles is not None and not case.particles.is_file():
            raise DataError(f"{case.particles}: missing")
    for case in dataset.cases:
        check_pair(case.image, case.label, dataset.labels)


def _check_names(cases: Iterable[Case]) -> None:
    seen: dict[str, Path] = {}
    for case in cases:
        if case.name in seen:
            raise DataError(f"{case.image}: two cases are named {case.name} (the other is {seen[case.name]})")
        seen[case.name] = case.image


def _occurring(array: np.ndarray) -> set[int]:
    low, high = int(array.min()), int(array.max())
    if high - low < 65536:  # counting is several times faster than sorting
        return set((np.flatnonzero(np.bincount(array.astype(np.int64).ravel() - low)) + low).tolist())
    return {int(value) for value in np.unique(array)}


def _shape(shape: Iterable[int]) -> str:
    return " x ".join(str(n) for n in shape)


def _few(values: list[int]) -> str:
    return ", ".join(str(value) for value in values[:5]) + (", ..." if len(values) > 5 else "")


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
