"""Write files so that no reader ever sees half of one: beside the destination first, then moved into place."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import NibabelWriter

_WRITING = ".writing-"  # begins the name of a file that is not complete yet


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Temporary path beside ``path``, moved onto ``path`` when the block ends and deleted when it raises.

    The temporary name keeps every suffix of ``path`` (``.nii.gz``), because most writers choose the format by it. Missing folders
    are made.

    Args:
        path: the destination; an existing file is replaced in one step.

    Yields:
        A path in the destination's folder to write to.

    Raises:
        FileNotFoundError: the block ended without writing the temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=_WRITING, suffix="-" + path.name, dir=path.parent)
    os.close(handle)
    # Some writers (itk among them) refuse or append to an existing file: hand over a free name.
    os.unlink(name)
    temporary = Path(name)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete, at any depth of a folder, the temporary files that a killed process left of :func:`atomic_path`."""
    for path in Path(folder).rglob(f"{_WRITING}*"):
        path.unlink(missing_ok=True)


def as_read(content: Any) -> Any:
    """What :func:`write_json` makes of it, read back: lists for tuples, texts for other keys."""
    return json.loads(json.dumps(content, default=_plain))


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; paths become strings, numpy numbers and arrays plain ones.

    Raises:
        TypeError: ``value`` holds something JSON has no form for.
        ValueError: ``value`` holds NaN or infinity, which JSON does not know.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, default=_plain, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def write_csv(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV with a header, atomically.

    Args:
        path: the destination.
        rows: one mapping of column to value a row; a column missing in a row is left empty.
        columns: the columns in order; by default all that occur, in the order of their first appearance.

    Raises:
        ValueError: a row holds a column that ``columns`` does not.
    """
    rows = list(rows)
    if columns is None:
        columns = list(dict.fromkeys(column for row in rows for column in row))
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_nifti(path: str | os.PathLike, array: Any, affine: Any, dtype: Any = None) -> None:
    """Write a volume as NIfTI, atomically.

    Args:
        path: the destination, ``.nii`` or ``.nii.gz``.
        array: the volume, indexed (x, y, z[, ...]) as nibabel does.
        affine: (4, 4), voxel index to RAS millimetres.
        dtype: stored type; by default that of the array (bool becomes uint8, 64-bit integers int32).

    Raises:
        ValueError: the name ends in neither ``.nii`` nor ``.nii.gz``, or the affine is not 4 x 4.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise ValueError(f"{path}: a NIfTI file ends in .nii or .nii.gz")
    array = np.asarray(array)
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4):
        raise ValueError(f"{path}: the affine must be 4 x 4, got {affine.shape}")
    if dtype is None:
        dtype = {"bool": np.uint8, "int64": np.int32, "uint64": np.int32, "float16": np.float32}.get(array.dtype.name, array.dtype)
    image = nib.Nifti1Image(array.astype(dtype, copy=False), affine)
    image.header.set_xyzt_units("mm")
    # Viewers differ in which of the two forms they trust: write both, code 1 (scanner).
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer (for ``SaveImaged``), through :func:`atomic_path`."""

    @classmethod
    def resample_if_needed(cls, data_array: Any, affine: Any = None, target_affine: Any = None, **options: Any) -> tuple[Any, Any]:
        """As MONAI's writer does; without a target, nothing is resampled.

        There MONAI 1.6.1 takes the volume for a 2-D one and inverts that part of its affine, which is singular where axes are permuted.
        """
        if target_affine is None:
            return data_array, affine
        return super().resample_if_needed(data_array, affine, target_affine, **options)

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write the image, as MONAI's writer does, but whole or not at all."""
        with atomic_path(filename) as temporary:
            super().write(temporary, verbose=verbose, **obj_kwargs)
