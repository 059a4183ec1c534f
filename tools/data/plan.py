"""The plan of a model: what its network's construction and its preprocessing need to know of the data.

Made from the data set once, as nnU-Net does (median spacing, a grid that holds every case), saved as ``plan.json`` beside the
weights, and followed by everything that uses the model afterwards. Every field may be overridden.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from tools.data.checks import DataError, read_json
from tools.data.decathlon import Case, Dataset
from tools.data.files import as_read, write_json

__all__ = ["LabelValues", "Plan", "grid_along", "make_plan", "nearest_or_raise", "read_header", "rounded_up", "turn_to"]

VERSION = 1
MULTIPLE = 16  # the networks halve the grid four times
INTENSITY = {"lower_percentile": 0.5, "upper_percentile": 99.5}


class LabelValues:
    """What follows from ``labels``, label value to name in rising order: for dataclasses that hold such a field."""

    labels: dict[int, str]

    @cached_property
    def label_values(self) -> tuple[int, ...]:
        """Label values in the order of the network's channels, the background first."""
        return tuple(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes with the background: the channels of a segmentation."""
        return len(self.labels)

    def to_channels(self, label: torch.Tensor) -> torch.Tensor:
        """Label values of the data set to channel numbers 0 .. num_classes - 1 (int64), elementwise.

        Values that the plan does not know must have been ruled out (:mod:`tools.data.checks`).
        """
        if self.label_values == tuple(range(self.num_classes)):
            return label.long()
        return torch.searchsorted(torch.tensor(self.label_values, device=label.device), label.long().contiguous())

    def to_values(self, channels: torch.Tensor) -> torch.Tensor:
        """Channel numbers to label values of the data set (int64), elementwise; the inverse of :meth:`to_channels`."""
        return torch.tensor(self.label_values, device=channels.device)[channels.long()]

    @property
    def label_dtype(self) -> np.dtype:
        """Smallest integer type that holds every label value: uint8 unless an atlas numbers its regions in thousands."""
        return np.result_type(*(np.min_scalar_type(value) for value in self.label_values))


@dataclass(frozen=True)
class Plan(LabelValues):
    """What preprocessing and network construction need to know.

    Attributes:
        labels: label value in the data set to name, with 0 the background. Channel c of a network stands for the c-th smallest value.
        orientation: axis codes of the network grid; "RAS" means that the indices grow to the right, to the front and upwards.
        spacing: voxel size of the network grid in mm, per axis.
        size: network grid in voxels, multiples of 16; volumes are padded or cropped to it about their centre.
        intensity: percentiles of a volume that become 0 and 1 (values beyond are clipped).
        extra: what a bundle adds: network sizes, numbers of PCA modes, planes between structures.
        version: version of this format.

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    labels: dict[int, str]
    orientation: str = "RAS"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    size: tuple[int, int, int] = (64, 64, 64)
    intensity: dict[str, float] = field(default_factory=lambda: dict(INTENSITY))
    extra: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def __post_init__(self) -> None:
        settle_fields(self, axes=3)
        object.__setattr__(self, "size", positive_numbers("size", self.size, 3, int))
        object.__setattr__(self, "extra", as_read(self.extra))
        if self.version != VERSION:
            raise ValueError(f"plan version {self.version} is not supported (this is version {VERSION})")
        if any(n % MULTIPLE for n in self.size):
            raise ValueError(f"size must hold multiples of {MULTIPLE}, not {self.size}")
        if not self.orientation:
            raise ValueError("orientation must name the axes, such as RAS or LPS")

    def save(self, path: str | os.PathLike) -> None:
        """Write the plan as JSON, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Plan:
        """Read a plan.

        Raises:
            DataError: the file is missing, no JSON, or holds no valid plan.
        """
        path = Path(path)
        content = read_json(path)
        if not isinstance(content, dict) or "labels" not in content:
            raise DataError(f'{path}: not a plan (no "labels")')
        try:
            nearest_or_raise("plan key", content, [f.name for f in fields(cls)])
            return cls(**content)
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: {error}") from error


def make_plan(dataset: Dataset, max_size: int | Sequence[int] = 160, **overrides: Any) -> Plan:
    """Make the plan of a data set from the headers of its training images.

    Spacing is the median of the data set's, axis by axis after reorientation. The size is the smallest multiple of 16 that holds
    every image at that spacing. An axis that would exceed ``max_size`` gets coarser voxels instead, so that the grid still holds
    every case; with a ``spacing`` given, cases are cropped there.

    Args:
        dataset: the data set; its images must have passed :func:`tools.data.checks.check_dataset`.
        max_size: greatest size in voxels, one number or one an axis.
        **overrides: fields of :class:`Plan`; None leaves a field to the data. ``intensity`` and ``extra`` may be given in part, and
            ``spacing`` and ``size`` as one number for all axes.

    Raises:
        DataError: an override has an unknown name (the nearest one is named) or a value out of range; no case is there.
    """
    allowed = [f.name for f in fields(Plan) if f.name != "version"] + ["max_size"]
    nearest_or_raise("plan override", overrides, allowed)
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        limit = np.array(positive_numbers("max_size", max_size, 3, int)) // MULTIPLE * MULTIPLE
        if (limit < MULTIPLE).any():
            raise ValueError(f"max_size must be at least {MULTIPLE}, not {max_size}")
        # Checks what was given before the headers are read.
        plan = Plan(**{"labels": dataset.labels, **given})
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"plan: {error}") from error
    if "spacing" in given and "size" in given:
        return plan
    if not dataset.cases:
        raise DataError(f"{dataset.root / 'dataset.json'}: no training case to make a plan from")

    grids = [grid_along(*read_header(case), plan.orientation) for case in dataset.cases]
    shapes, spacings = (np.array(part) for part in zip(*grids, strict=True))
    extents = shapes * spacings
    if "spacing" not in given:
        limit = np.array(plan.size) if "size" in given else limit
        spacing = np.maximum(np.median(spacings, axis=0), extents.max(axis=0) / limit if "size" not in given else 0)
        given["spacing"] = tuple(rounded_up(value) for value in spacing)
    if "size" not in given:
        voxels = np.round(extents / np.array(positive_numbers("spacing", given["spacing"], 3, float))).max(axis=0)
        # A fortieth of a voxel: what the rounding of spacings may cost is no reason for another 16.
        size = np.ceil((voxels - 0.025) / MULTIPLE) * MULTIPLE
        given["size"] = tuple(int(n) for n in np.minimum(np.maximum(size, MULTIPLE), limit))
    return Plan(**{"labels": dataset.labels, **given})


def read_header(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Shape (3,) in voxels and affine (4, 4), voxel index to RAS mm, of a case's image, from its header alone.

    Raises:
        DataError: the image is missing or no NIfTI.
    """
    try:
        image = nib.load(case.image)
    except (OSError, nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise DataError(f"{case.image}: missing or not readable as NIfTI") from error
    return np.array(image.shape[:3]), image.affine


def grid_along(shape: np.ndarray, affine: np.ndarray, orientation: str) -> tuple[np.ndarray, np.ndarray]:
    """Shape (3,) in voxels and spacing (3,) in mm of a grid along the axes of an orientation ("RAS")."""
    order = turn_to(orientation, affine)[:, 0].astype(int)
    turned, spacing = np.empty(3), np.empty(3)
    turned[order] = shape
    spacing[order] = nib.affines.voxel_sizes(affine)
    return turned, spacing


def turn_to(orientation: str, affine: np.ndarray) -> np.ndarray:
    """What turns the axes of an image (affine (4, 4), voxel index to RAS mm) along an orientation ("RAS"), as nibabel writes it (3, 2)."""
    return ornt_transform(io_orientation(affine), axcodes2ornt(orientation))


def rounded_up(value: float) -> float:
    """To four digits after the point, or the float32 noise of headers would stand in the plan; never down by more than that noise."""
    return math.ceil(round(value * 1e4, 2)) / 1e4


def settle_fields(plan: Any, axes: int) -> None:
    """Bring the fields that plans of volumes and of slices share into their types, in place, and check them.

    Args:
        plan: frozen dataclass with ``labels``, ``orientation`` (or None), ``spacing`` and ``intensity``.
        axes: of its grid, 3 or 2.

    Raises:
        ValueError: a field is unfit; the message names it.
    """
    set_field = object.__setattr__  # the way to fill a frozen dataclass
    set_field(plan, "labels", {int(value): str(name) for value, name in sorted(plan.labels.items(), key=lambda item: int(item[0]))})
    set_field(plan, "orientation", None if plan.orientation is None else str(plan.orientation).upper())
    set_field(plan, "spacing", positive_numbers("spacing", plan.spacing, axes, float))
    nearest_or_raise("intensity key", plan.intensity, INTENSITY)
    set_field(plan, "intensity", {**INTENSITY, **{key: float(value) for key, value in plan.intensity.items()}})
    if 0 not in plan.labels or len(plan.labels) < 2:
        raise ValueError("labels must hold the background 0 and at least one more value")
    if plan.orientation and sorted("LPI".find(c) if c in "LPI" else "RAS".find(c) for c in plan.orientation) != [0, 1, 2]:
        raise ValueError(f"orientation must name each axis once, such as RAS or LPS, not {plan.orientation!r}")
    if not 0 <= plan.intensity["lower_percentile"] < plan.intensity["upper_percentile"] <= 100:
        raise ValueError(f"intensity percentiles must satisfy 0 <= lower < upper <= 100, not {plan.intensity}")


def positive_numbers(name: str, value: Any, count: int, kind: type) -> tuple:
    """``value``, one number for all or ``count`` of them, as a tuple of ``kind``.

    Raises:
        ValueError: it is something else, or not positive, finite and, for ``int``, whole; the message names it.
    """
    values = [value] * count if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if not isinstance(values, (list, tuple, np.ndarray)) or len(values) != count:
        raise ValueError(f"{name} must be one number or {('two', 'three')[count - 2]}, not {value!r}")
    result = tuple(kind(v) for v in values)
    if not all(v > 0 and math.isfinite(v) and v == float(w) for v, w in zip(result, values, strict=True)):
        raise ValueError(f"{name} must hold positive {'whole ' if kind is int else ''}numbers, not {value!r}")
    return result


def nearest_or_raise(what: str, given: Mapping[str, Any], known: Sequence[str] | Mapping[str, Any]) -> None:
    """Refuse keys that are not known, naming the nearest one.

    Raises:
        DataError: a key is unknown.
    """
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), n=1, cutoff=0)
            raise DataError(f"unknown {what} {key!r}, the nearest is {near[0]!r}")
