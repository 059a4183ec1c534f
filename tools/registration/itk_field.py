"""The edge of the system: network displacement fields to and from ITK's displacement fields in LPS millimetres.

``itk.DisplacementFieldTransform``, ``itk.WarpImageFilter``, ANTs and 3D Slicer read the files written here.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import itk
import numpy as np
import torch

from tools.data.checks import DataError
from tools.data.files import atomic_path
from tools.registration.displacement import sample
from tools.registration.fields import grid_points, lps_affine

__all__ = ["physical_displacement", "read_itk_field", "resample", "write_itk_field"]


def physical_displacement(
    ddf: torch.Tensor,
    fixed_affine: np.ndarray,
    moving_affine: np.ndarray,
    target_shape: tuple[int, int, int],
    target_affine: np.ndarray,
) -> np.ndarray:
    """The ITK displacement on any grid of the fixed space, usually the fixed image's own.

    Fixed and moving image each have their own network grid: fixed network voxel p lies at A_f p and looks at A_m (p + u(p)) of the
    moving world. Between network voxels u is linear; outside the network grid it keeps its border value.

    Args:
        ddf: u, (1, 3, D, H, W) or (3, D, H, W), voxels of the network grid.
        fixed_affine: A_f, (4, 4), network voxel to RAS mm of the fixed image.
        moving_affine: A_m, (4, 4), network voxel to RAS mm of the moving image.
        target_shape: (D', H', W') of the grid of the result.
        target_affine: (4, 4), voxel of that grid to RAS mm.

    Returns:
        moving minus fixed position in LPS mm, (D', H', W', 3), float32.

    Raises:
        ValueError: ``ddf`` is not one displacement field.
    """
    if ddf.ndim == 4:
        ddf = ddf[None]
    if ddf.ndim != 5 or tuple(ddf.shape[:2]) != (1, 3):
        raise ValueError(f"expected one displacement field (1, 3, D, H, W), got {tuple(ddf.shape)}")
    fixed = grid_points(target_shape, target_affine)
    position = torch.from_numpy(_voxels(fixed_affine, fixed, target_shape))
    position = position + sample(ddf.detach().to("cpu", torch.float64), position)
    moving_affine = np.asarray(moving_affine, dtype=np.float64)
    moving = position[0].reshape(3, -1).numpy().T @ moving_affine[:3, :3].T + moving_affine[:3, 3]
    displacement = (moving - fixed) * np.array([-1.0, -1.0, 1.0])
    return displacement.reshape(*target_shape, 3).astype(np.float32)


def resample(
    volume: np.ndarray, volume_affine: np.ndarray, displacement: np.ndarray, field_affine: np.ndarray, mode: str = "linear"
) -> np.ndarray:
    """Apply a physical field to a native image, with the result of ITK's resampler: 0 beyond half a voxel outside the image.

    Args:
        volume: the moving image or label map, (D', H', W').
        volume_affine: (4, 4), its voxel to RAS mm.
        displacement: (D, H, W, 3), LPS mm.
        field_affine: (4, 4), voxel of the field to RAS mm.
        mode: "linear" or "nearest" (label maps).

    Returns:
        (D, H, W) on the grid of the field; float32 for "linear", the volume's dtype for "nearest".

    Raises:
        ValueError: ``mode`` is neither "linear" nor "nearest", or the volume is not 3-D.
    """
    if mode not in ("linear", "nearest"):
        raise ValueError(f"mode must be 'linear' or 'nearest', got {mode!r}")
    if volume.ndim != 3:
        raise ValueError(f"expected a volume (D, H, W), got {volume.shape}")
    shape = displacement.shape[:3]
    moving = grid_points(shape, lps_affine(field_affine)) + displacement.reshape(-1, 3)
    position = _voxels(lps_affine(volume_affine), moving, shape)
    end = np.array(volume.shape).reshape(1, 3, 1, 1, 1) - 0.5
    # headers store float32: without the slack a grid's own outermost plane may fall outside by rounding
    inside = ((position >= -0.5 - 1e-4) & (position < end + 1e-4)).all(1)[0]
    if mode == "nearest":
        # ITK rounds halves up, grid_sample to even
        nearest = np.clip(np.floor(position[0] + 0.5).astype(int), 0, np.array(volume.shape).reshape(3, 1, 1, 1) - 1)
        return np.where(inside, volume[tuple(nearest)], 0).astype(volume.dtype)
    source = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float64))[None, None]
    return np.where(inside, sample(source, torch.from_numpy(position))[0, 0].numpy(), 0).astype(np.float32)


def is_sheared(affine: np.ndarray) -> bool:
    """Whether the axes of an affine (4, 4) are not at right angles, to 1e-3 of a cosine: an ITK image cannot have such a grid."""
    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(direction.T @ direction - np.eye(3)).max() > 1e-3)


def write_itk_field(path: str | Path, displacement: np.ndarray, affine: np.ndarray) -> None:
    """Write a displacement field as an ITK vector image, atomically; the format follows the suffix (``.nii.gz``, ``.mha``, ``.nrrd``).

    Args:
        path: the destination.
        displacement: (D, H, W, 3), LPS mm.
        affine: (4, 4), voxel to RAS mm.

    Raises:
        DataError: the affine is sheared, which ITK's images cannot hold, or the field is not finite, which ITK would read as zeros.
        ValueError: the shape is not (D, H, W, 3).
    """
    if displacement.ndim != 4 or displacement.shape[-1] != 3:
        raise ValueError(f"expected a displacement field (D, H, W, 3), got {displacement.shape}")
    if not np.isfinite(displacement).all():
        raise DataError(f"{path}: the field to be written holds values that are not finite")
    world = lps_affine(affine)
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    direction = world[:3, :3] / spacing
    if is_sheared(affine):
        raise DataError(f"{path}: the grid's affine is sheared, an ITK image cannot hold it")
    # ITK's arrays run z, y, x
    array = np.ascontiguousarray(displacement.transpose(2, 1, 0, 3), dtype=np.float32)
    image = itk.image_from_array(array, ttype=itk.Image[itk.Vector[itk.F, 3], 3])
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(world[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(direction)))
    with atomic_path(path) as temporary:
        itk.imwrite(image, str(temporary))


def read_itk_field(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a displacement field in any format of ITK.

    Returns:
        the displacement (D, H, W, 3) in LPS mm, float32, and the affine (4, 4), voxel to RAS mm.

    Raises:
        DataError: the file is missing, unreadable, holds no 3-D image of 3-vectors, or values that are not finite.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: missing")
    _check_gzip(Path(path))
    reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        raise DataError(f"{path}: not an image that ITK can read")
    try:
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        components, dimensions = reader.GetNumberOfComponents(), reader.GetNumberOfDimensions()
        if (components, dimensions) != (3, 3):
            raise DataError(f"{path}: not a displacement field (3-D, 3 components a voxel) but {dimensions}-D with {components}")
        image = itk.imread(str(path), itk.Vector[itk.F, 3])
    except RuntimeError as error:
        raise DataError(f"{path}: unreadable, {str(error).strip().splitlines()[-1]}") from error
    displacement = np.asarray(itk.array_from_image(image)).transpose(2, 1, 0, 3)
    if not np.isfinite(displacement).all():
        raise DataError(f"{path}: the field holds values that are not finite")
    world = np.eye(4)
    world[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    world[:3, 3] = np.array(image.GetOrigin())
    return np.ascontiguousarray(displacement), lps_affine(world)


def _check_gzip(path: Path) -> None:
    """Refuse a cut or damaged ``.gz``: ITK reads what is missing as zeros, without a word."""
    if path.suffix != ".gz":
        return
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 22):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated or corrupt ({error})") from error


def _voxels(affine: np.ndarray, points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """World points (D * H * W, 3) as voxel positions (1, 3, D, H, W) of a grid with this affine to the same world."""
    inverse = np.linalg.inv(np.asarray(affine, dtype=np.float64))
    return np.ascontiguousarray((points @ inverse[:3, :3].T + inverse[:3, 3]).T).reshape(1, 3, *shape)
