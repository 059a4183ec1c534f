"""Volumes to slices and back.

A volume is turned so that its slices lie along the first axis, scaled by its own percentiles, and resampled in the plane where its
pixels are not the plan's. The third axis keeps its voxels, so that every slice of a file is one slice of the network. Everything
follows from the affine, so results go back to the voxels they came from, whatever the file's orientation and obliqueness.

As in :mod:`tools.data.geometry` the work is done by MONAI's dictionary transforms: the same ``Compose`` serves training, ``Invertd``
and MONAI Label.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, DivisiblePadd, InvertibleTransform, MapTransform, Orientation, Transform
from nibabel.orientations import aff2axcodes

from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan, SlicePlan
from tools.data.geometry import AXIS_LABELS, CentredSpacingd, GridMapping, grid_mapping, loading, scaling
from tools.data.plan import MULTIPLE

__all__ = ["SliceCase", "SlicesFirstd", "crop", "slice_preprocessing", "stack_slices", "to_slices"]


class SlicesFirstd(MapTransform, InvertibleTransform):
    """Turn volumes so that the first axis runs across the slices; the other two keep their order.

    Args:
        keys: keys of channel-first MetaTensors (C, X, Y, Z).
        plan: the domain's plan, which says what the axis across the slices is.
        allow_missing_keys: whether a key may be missing.
    """

    def __init__(self, keys: KeysCollection, plan: SlicePlan, allow_missing_keys: bool = False) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.plan = plan

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn every key: (C, X, Y, Z) to (C, S, H, W)."""
        result = dict(data)
        for key in self.key_iterator(result):
            codes = self.plan.axcodes(np.asarray(result[key].affine, dtype=np.float64))
            result[key] = Orientation(axcodes=codes, labels=AXIS_LABELS)(result[key])
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Turn every key back."""
        result = dict(data)
        for key in self.key_iterator(result):
            # MONAI undoes a transform with the object that did it, or one in its place; here each volume had one of its own.
            done = result[key].applied_operations.pop()
            turn = Orientation(axcodes=aff2axcodes(np.asarray(done["extra_info"]["original_affine"])), labels=AXIS_LABELS)
            with turn.trace_transform(False):
                result[key] = turn(result[key])
        return result


def slice_preprocessing(
    plan: SlicePlan,
    keys: Sequence[str] = ("image", "label"),
    label_keys: Sequence[str] = ("label",),
    load: bool = True,
    multiple: int = MULTIPLE,
) -> Compose:
    """Transforms from a file, or an array with an affine, to a stack of slices.

    Args:
        plan: the domain's plan.
        keys: keys of one dictionary a case; a key that a case lacks (the label of an unlabelled one) is passed over.
        label_keys: those of the keys that hold label maps: nearest neighbour, values untouched. The others are images:
            interpolated linearly in the plane, and the plan's percentiles of each volume scaled to 0 and 1.
        load: whether the entries are file names; otherwise they are MetaTensors (1, X, Y, Z) that carry their affine.
        multiple: slices are padded with zeros, on both sides alike, until rows and columns are multiples of it.

    Returns:
        a Compose whose results are float32 MetaTensors (1, S, H, W), S the slices of the file, with their affine; ``Invertd``
        undoes it, and so does :func:`tools.data.geometry.grid_mapping`.
    """
    images = [key for key in keys if key not in label_keys]
    modes = ["nearest" if key in label_keys else "bilinear" for key in keys]
    steps = loading(keys) if load else []
    steps.append(SlicesFirstd(keys, plan, allow_missing_keys=True))
    # Before any interpolation and padding, which would move the percentiles.
    steps += scaling(images, plan.intensity)
    steps.append(CentredSpacingd(keys, (0.0, *plan.spacing), modes, allow_missing_keys=True))
    if multiple > 1:
        steps.append(DivisiblePadd(keys, k=(1, multiple, multiple), mode="constant", allow_missing_keys=True))
    return Compose(steps)


def to_slices(
    volume: np.ndarray | torch.Tensor, affine: np.ndarray, plan: SlicePlan, is_label: bool = False, multiple: int = MULTIPLE
) -> tuple[torch.Tensor, GridMapping]:
    """Cut one volume.

    Args:
        volume: (X, Y, Z) in the file's axis order.
        affine: (4, 4), voxel index to RAS mm.
        plan: the domain's plan.
        is_label: a label map (nearest neighbour, values untouched) or an image (linear, scaled to 0 .. 1).
        multiple: see :func:`slice_preprocessing`.

    Returns:
        the float32 slices (S, H, W), and the way back for :func:`stack_slices`.
    """
    affine = np.asarray(affine, dtype=np.float64)
    image = MetaTensor(torch.as_tensor(np.asarray(volume, dtype=np.float32))[None], affine=torch.from_numpy(affine))
    key = "label" if is_label else "image"
    result = slice_preprocessing(plan, keys=(key,), load=False, multiple=multiple)({key: image})[key]
    return result.as_tensor()[0], grid_mapping(result, plan, native_shape=tuple(volume.shape), native_affine=affine)


def stack_slices(slices: torch.Tensor, mapping: GridMapping) -> torch.Tensor:
    """Put predicted slices back into the voxels of the file they came from.

    Args:
        slices: label values (S, H, W), or class scores or probabilities (C, S, H, W), of which the label value of the greatest is
            taken, after linear interpolation where the plane was resampled.
        mapping: what :func:`to_slices` gave, or :func:`tools.data.geometry.grid_mapping` of the preprocessed image.

    Returns:
        (X, Y, Z) of the file: label values, in the type of ``slices`` or, from scores, int64.
    """
    slices = torch.as_tensor(slices)
    indices = _whole_voxels(mapping)
    if indices is None:
        return mapping.to_native(slices, "nearest" if slices.ndim == 3 else "segmentation")
    # Nothing was resampled: many times faster than to interpolate, with the same result.
    if slices.ndim == 4:
        slices = torch.tensor(mapping.label_values, device=slices.device)[slices.argmax(0)]
    axes, positions = indices
    for axis, position in enumerate(positions):
        slices = slices.index_select(axis, torch.from_numpy(position).to(slices.device))
    return slices.permute(*np.argsort(axes).tolist())


def _whole_voxels(mapping: GridMapping) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """The file's axis along each axis of the slices, and the positions there of its voxels; None unless all are voxel centres."""
    matrix = np.linalg.inv(mapping.affine) @ mapping.native_affine  # voxel of the file to voxel of the slices
    axes = np.abs(matrix[:3, :3]).argmax(axis=1)
    exact = np.rint(matrix[:3])
    # How far off the last voxel of the file can be.
    error = np.abs(matrix[:3] - exact) @ np.array([*mapping.native_shape, 1])
    if sorted(axes) != [0, 1, 2] or not (np.abs(exact[:, :3]).sum(axis=1) == 1).all() or error.max() > 1e-2:
        return None
    positions = [(exact[i, axis] * np.arange(mapping.native_shape[axis]) + exact[i, 3]).astype(int) for i, axis in enumerate(axes)]
    if any(p.min() < 0 or p.max() >= n for p, n in zip(positions, mapping.size, strict=True)):
        return None
    return axes, positions


class SliceCase(Transform):
    """From a training case's paths to what is kept in memory of it: a MONAI transform for ``CacheDataset``.

    Args:
        plan: the plan of all domains.
    """

    def __init__(self, plan: DomainPlan) -> None:
        self.plan = plan
        # Crops are cut from these slices, and padded then.
        self._preprocessing = {name: slice_preprocessing(domain, multiple=1) for name, domain in plan.domains.items()}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[str, Any]:
        """Load one case.

        Args:
            data: "image", "domain" (its name) and, where there are any, "label" and "name"; "values", where the label has other values
                than the plan's: that of each channel.

        Returns:
            "image" (S, H, W) float16 in [0, 1]; "label" (S, H, W) uint8 (int16 from 256 classes on), channel numbers of the domain,
            where there is one; "domain", its number; "name".

        Raises:
            DataError: the plan has no such domain, or the label a value that is none of "values".
        """
        index = self.plan.index(data["domain"])
        plan = self.plan.domains[data["domain"]]
        loaded = self._preprocessing[data["domain"]]({key: data[key] for key in ("image", "label") if data.get(key) is not None})
        result: dict[str, Any] = {"image": loaded["image"].as_tensor()[0].half(), "domain": index, "name": data.get("name", "")}
        if "label" in loaded:
            kind = torch.uint8 if plan.num_classes <= 256 else torch.int16
            label = loaded["label"].as_tensor()[0]
            channels = plan.to_channels(label) if data.get("values") is None else _channels(label, data["values"], data)
            result["label"] = channels.to(kind)
        return result


def _channels(label: torch.Tensor, values: Sequence[int], case: Mapping[str, Any]) -> torch.Tensor:
    """Channel numbers of a label (S, H, W), given the value of each channel."""
    result = torch.full(label.shape, -1)
    for channel, value in enumerate(values):
        result[label == value] = channel
    if (result < 0).any():
        found = sorted({int(value) for value in label[result < 0].unique()})
        raise DataError(f"{case['label']}: label value {found[0]} is none of the domain {case['domain']!r}, which has {sorted(values)}")
    return result


def crop(slice_: torch.Tensor, top: int, left: int, size: Sequence[int]) -> torch.Tensor:
    """A window (*size) of a slice (H, W), with zeros where it lies outside; ``top`` and ``left`` may be negative."""
    result = slice_.new_zeros(tuple(size))
    rows, columns = (slice(max(begin, 0), min(begin + n, limit)) for begin, n, limit in zip((top, left), size, slice_.shape, strict=True))
    if rows.start < rows.stop and columns.start < columns.stop:
        result[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = slice_[rows, columns]
    return result
