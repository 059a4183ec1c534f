"""To the plan's space and back.

The network's grid has the plan's spacing and its axes lie along the image's own axes, permuted and flipped to come closest to the
plan's orientation; an oblique rotation stays in the affine. The volume is centred in the grid. Everything here follows from the
affine, so images of any orientation, spacing and obliqueness come in, and results go back to the voxels they came from.

The work is done by MONAI's dictionary transforms, so the same ``Compose`` serves training, ``Invertd`` and MONAI Label.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.image_reader import NibabelReader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    InvertibleTransform,
    LoadImaged,
    MapTransform,
    Orientationd,
    ResizeWithPadOrCropd,
    ScaleIntensityRangePercentilesd,
    SpatialResample,
)

from tools.data.checks import read_nifti
from tools.data.plan import LabelValues, Plan

__all__ = ["CentredSpacingd", "GridMapping", "grid_mapping", "load_volume", "loading", "onto_grid", "preprocessing", "scaling", "to_plan"]

AXIS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))  # of RAS, in which nibabel's affines are
SPACING_TOLERANCE = 1e-3  # relative; below it a resampling would blur and change nothing else


def load_volume(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI volume.

    Returns:
        the array (X, Y, Z) in the file's axis order, and its affine (4, 4), voxel index to RAS mm.

    Raises:
        DataError: the file is missing, truncated or no single 3-D volume.
    """
    return read_nifti(Path(path))


class CentredSpacingd(MapTransform, InvertibleTransform):
    """Resample to a spacing, the new grid having the old one's centre.

    MONAI's ``Spacingd`` keeps the first voxel in place, so that the centre, about which volumes are padded, would shift with the
    native spacing. Volumes that have the spacing already (to 0.1 %) pass untouched.

    Args:
        keys: keys of channel-first MetaTensors (C, X, Y, Z).
        pixdim: spacing of the new grid in mm, per axis; an axis with 0 keeps the spacing it has.
        mode: "bilinear" (trilinear) or "nearest", one for all keys or one a key.
        allow_missing_keys: whether a key may be missing.
    """

    def __init__(
        self, keys: KeysCollection, pixdim: Sequence[float], mode: str | Sequence[str] = "bilinear", allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.pixdim = np.asarray(pixdim, dtype=np.float64)
        self.mode = [mode] * len(self.keys) if isinstance(mode, str) else list(mode)
        self.resample = SpatialResample(padding_mode="border", align_corners=True, dtype=torch.float32)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample every key that needs it."""
        result = dict(data)
        for key, mode in self.key_iterator(result, self.mode):
            image = result[key]
            affine = np.asarray(image.affine, dtype=np.float64)
            spacing = np.linalg.norm(affine[:3, :3], axis=0)
            pixdim = np.where(self.pixdim > 0, self.pixdim, spacing)
            if np.allclose(spacing, pixdim, rtol=SPACING_TOLERANCE, atol=0):
                continue
            old = np.array(image.shape[1:])
            new = np.maximum(np.round(old * spacing / pixdim), 1).astype(int)
            target = affine.copy()
            target[:3, :3] *= pixdim / spacing
            target[:3, 3] += affine[:3, :3] @ ((old - 1) / 2) - target[:3, :3] @ ((new - 1) / 2)
            result[key] = self.resample(image, dst_affine=target, spatial_size=new.tolist(), mode=mode)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo the resampling of every key it was done to."""
        result = dict(data)
        for key in self.key_iterator(result):
            applied = result[key].applied_operations
            if applied and applied[-1]["class"] == "SpatialResample":
                result[key] = self.resample.inverse(result[key])
        return result


def loading(keys: Sequence[str]) -> list[Any]:
    """Transforms from file names to channel-first MetaTensors (1, X, Y, Z); a missing key is passed over."""
    return [
        # nibabel's axes are kept, and a trailing axis of length one is dropped.
        LoadImaged(keys, reader=NibabelReader(squeeze_non_spatial_dims=True), image_only=True, allow_missing_keys=True),
        EnsureChannelFirstd(keys, channel_dim="no_channel", allow_missing_keys=True),
    ]


def scaling(keys: Sequence[str], intensity: Mapping[str, float]) -> list[Any]:
    """Transforms that bring a plan's percentiles of each volume to 0 and 1; none without keys."""
    percentiles = intensity["lower_percentile"], intensity["upper_percentile"]
    return [ScaleIntensityRangePercentilesd(keys, *percentiles, 0.0, 1.0, clip=True, allow_missing_keys=True)] if keys else []


def preprocessing(
    plan: Plan, keys: Sequence[str] = ("image", "label"), label_keys: Sequence[str] = ("label",), load: bool = True
) -> Compose:
    """Transforms from a file, or an array with an affine, to the network's grid.

    Args:
        plan: the plan.
        keys: keys of one dictionary a case; a key that a case lacks (the label of an unlabelled one) is passed over.
        label_keys: those of the keys that hold label maps: nearest neighbour, values untouched. The others are images:
            interpolated linearly, and the plan's percentiles of each volume scaled to 0 and 1.
        load: whether the entries are file names; otherwise they are MetaTensors (1, X, Y, Z) that carry their affine.

    Returns:
        a Compose whose results are float32 MetaTensors (1, *plan.size) with the affine of the network grid; ``Invertd`` undoes it.
    """
    images = [key for key in keys if key not in label_keys]
    modes = ["nearest" if key in label_keys else "bilinear" for key in keys]
    missing = {"allow_missing_keys": True}
    steps = loading(keys) if load else []
    steps.append(Orientationd(keys, axcodes=plan.orientation, labels=AXIS_LABELS, **missing))
    # Before any interpolation and padding, which would move the percentiles.
    steps += scaling(images, plan.intensity)
    steps.append(CentredSpacingd(keys, plan.spacing, modes, **missing))
    steps.append(ResizeWithPadOrCropd(keys, plan.size, mode="constant", **missing))
    return Compose(steps)


@dataclass(frozen=True)
class GridMapping:
    """Where a network grid and the voxels of an image lie in each other.

    Attributes:
        affine: (4, 4), voxel index of the network grid to RAS mm.
        size: network grid in voxels.
        native_affine: (4, 4), voxel index of the image as stored to RAS mm.
        native_shape: the image as stored, in voxels.
        label_values: label value that each channel of a segmentation stands for.
    """

    affine: np.ndarray
    size: tuple[int, int, int]
    native_affine: np.ndarray
    native_shape: tuple[int, int, int]
    label_values: tuple[int, ...]

    def to_native(self, volume: torch.Tensor | np.ndarray, mode: str = "nearest", padding: str = "zeros") -> torch.Tensor:
        """Bring a result from the network's grid to the image's own voxels.

        Args:
            volume: (C, *size) or (*size), on any device.
            mode: "nearest" for label maps, whose values are kept; "linear" for images and probabilities; "segmentation" for class
                probabilities (C, *size): interpolated linearly, then the label value of the most probable channel.
            padding: value outside the network's grid, where that was smaller than the image: "zeros" (background) or "border".

        Returns:
            (C, *native_shape) or (*native_shape), as ``volume`` was; float32 for "linear", the type of ``volume`` for "nearest",
            and (*native_shape) int64 for "segmentation".

        Raises:
            ValueError: the mode is unknown or the volume is not on the network's grid.
        """
        volume = torch.as_tensor(volume)
        if isinstance(volume, MetaTensor):
            volume = volume.as_tensor()
        if mode not in ("nearest", "linear", "segmentation"):
            raise ValueError(f"mode must be nearest, linear or segmentation, not {mode!r}")
        if tuple(volume.shape[-3:]) != self.size or volume.ndim not in (3, 4):
            raise ValueError(f"expected (C, D, H, W) or (D, H, W) with D, H, W = {self.size}, got {tuple(volume.shape)}")
        if mode == "segmentation" and (volume.ndim != 4 or len(volume) != len(self.label_values)):
            raise ValueError(f"expected one channel for each of the {len(self.label_values)} classes, got {tuple(volume.shape)}")
        batch = volume.reshape(1, -1, *self.size).float()
        interpolation = "nearest" if mode == "nearest" else "bilinear"
        native = F.grid_sample(batch, self._grid(batch), interpolation, padding_mode=padding, align_corners=True)[0]
        if mode == "segmentation":
            return torch.tensor(self.label_values, device=native.device)[native.argmax(0)]
        native = native.reshape(*volume.shape[:-3], *self.native_shape)
        return native.to(volume.dtype) if mode == "nearest" else native

    def _grid(self, batch: torch.Tensor) -> torch.Tensor:
        """Sampling positions (1, *native_shape, 3) in grid_sample's coordinates: last axis first, -1 and 1 the outer voxel centres."""
        matrix = np.linalg.inv(self.affine) @ self.native_affine  # native voxel to network voxel
        # Columns and offset for coordinates -1 .. 1 on both sides; an axis of one voxel has no extent to divide by.
        native_half = (np.array(self.native_shape) - 1) / 2
        half = np.maximum(np.array(self.size) - 1, 1) / 2
        theta = np.empty((3, 4))
        theta[:, :3] = matrix[:3, :3] * native_half / half[:, None]
        theta[:, 3] = (matrix[:3, :3] @ native_half + matrix[:3, 3]) / half - 1
        theta = np.concatenate([theta[::-1, 2::-1], theta[::-1, 3:]], axis=1)
        size = (1, 1, *self.native_shape)
        # In double precision: rounding must not carry a position on the border outside of it.
        grid = F.affine_grid(torch.from_numpy(theta.copy())[None], size, align_corners=True)
        return _snapped(grid, self.size).to(batch)


def _snapped(grid: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Positions within 1e-4 of a voxel centre moved onto it, so that a mapping by whole voxels returns the exact values."""
    half = torch.tensor([max(n - 1, 1) / 2 for n in reversed(size)], dtype=grid.dtype)
    voxel = (grid + 1) * half
    nearest = voxel.round()
    return torch.where((voxel - nearest).abs() < 1e-4, nearest, voxel) / half - 1


def to_plan(volume: np.ndarray | torch.Tensor, affine: np.ndarray, plan: Plan, is_label: bool = False) -> tuple[torch.Tensor, GridMapping]:
    """Bring one volume to the network's grid.

    Args:
        volume: (X, Y, Z) in the file's axis order.
        affine: (4, 4), voxel index to RAS mm.
        plan: the plan.
        is_label: a label map (nearest neighbour, values untouched) or an image (linear, scaled to 0 .. 1).

    Returns:
        the float32 tensor (1, *plan.size), and the mapping back.
    """
    affine = np.asarray(affine, dtype=np.float64)
    image = MetaTensor(torch.as_tensor(np.asarray(volume, dtype=np.float32))[None], affine=torch.from_numpy(affine))
    key = "label" if is_label else "image"
    transforms = _transforms(plan.orientation, plan.spacing, plan.size, tuple(sorted(plan.intensity.items())), key)
    result = transforms({key: image})[key]
    return result.as_tensor(), grid_mapping(result, plan, native_shape=tuple(volume.shape), native_affine=affine)


def onto_grid(volume: np.ndarray, affine: np.ndarray, plan: Plan, grid: GridMapping) -> torch.Tensor:
    """Bring an image to the network's grid of another one, as headers place the two in the world.

    Args:
        volume: (X, Y, Z) in the file's axis order.
        affine: (4, 4), voxel index to RAS mm.
        plan: the plan, whose percentiles of the whole volume are scaled to 0 and 1.
        grid: where the other image lies, of :func:`to_plan`.

    Returns:
        float32 (1, *grid.size), interpolated linearly, 0 outside of the volume.
    """
    image = torch.as_tensor(np.asarray(volume, dtype=np.float32))[None]
    image = Compose(scaling(["image"], plan.intensity))({"image": image})["image"]
    own = GridMapping(np.asarray(affine, dtype=np.float64), tuple(volume.shape), grid.affine, grid.size, plan.label_values)
    return own.to_native(image, mode="linear")


def grid_mapping(
    preprocessed: MetaTensor, plan: LabelValues, native_shape: Sequence[int] | None = None, native_affine: np.ndarray | None = None
) -> GridMapping:
    """The way back of a volume that went through :func:`preprocessing`.

    Args:
        preprocessed: (1, *size), with the meta-data MONAI gave it.
        plan: the plan it was brought to; its label values go into the mapping.
        native_shape: the image as stored; by default what its loader noted.
        native_affine: likewise its affine (4, 4), voxel index to RAS mm.
    """
    shape = preprocessed.meta["spatial_shape"] if native_shape is None else native_shape
    native = preprocessed.meta["original_affine"] if native_affine is None else native_affine
    return GridMapping(
        affine=np.asarray(preprocessed.affine, dtype=np.float64),
        size=tuple(preprocessed.shape[1:]),
        native_affine=np.asarray(native, dtype=np.float64),
        native_shape=tuple(int(n) for n in shape)[:3],
        label_values=plan.label_values,
    )


@lru_cache(maxsize=16)
def _transforms(orientation: str, spacing: tuple, size: tuple, intensity: tuple, key: str) -> Compose:
    plan = Plan(labels={0: "background", 1: "any"}, orientation=orientation, spacing=spacing, size=size, intensity=dict(intensity))
    return preprocessing(plan, keys=(key,), load=False)
