"""What is shown of a volume: planes, windows, slices, grey values, and structures as contours and colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy import ndimage

from tools.metrics.structures import dice, mean_of

__all__ = [
    "PLANES",
    "Plane",
    "as_array",
    "best_slices",
    "check_shapes",
    "draw_contours",
    "extent_of",
    "fill",
    "grey_limits",
    "mean_dice",
    "quarters",
    "window",
]


@dataclass(frozen=True)
class Plane:
    """One of the three anatomical planes: ``across`` is the axis through it, ``right`` and ``up`` the axes seen."""

    name: str
    across: int
    right: int
    up: int

    def cut(self, volume: np.ndarray, index: int) -> np.ndarray:
        """Slice as (rows, columns) = (up, right) of a (D, H, W) volume."""
        image = np.take(volume, index, axis=self.across)
        return image.T  # the axes left over are in order, right before up

    def aspect(self, extent: Sequence[float]) -> float:
        """Height over width of the slice; ``extent`` is the volume's size in mm."""
        return extent[self.up] / extent[self.right]


PLANES = (Plane("axial", 2, 0, 1), Plane("coronal", 1, 0, 2), Plane("sagittal", 0, 1, 2))


def as_array(volume: Any) -> np.ndarray:
    """A tensor of any device, or whatever NumPy takes for an array."""
    if isinstance(volume, torch.Tensor):
        volume = volume.detach().cpu().float().numpy()
    return np.asarray(volume)


def check_shapes(reference: np.ndarray, volumes: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError, which names the volume, unless the reference is (D, H, W) and the others have its shape."""
    if reference.ndim != 3:
        raise ValueError(f"expected a volume (D, H, W), got the shape {reference.shape}")
    for name, volume in volumes.items():
        if volume.shape != reference.shape:
            raise ValueError(f"{name} has the shape {volume.shape}, expected {reference.shape}")


def _bounds(mask: np.ndarray) -> list[tuple[int, int]]:
    """First and last-plus-one index of the mask along each axis; the whole volume for an empty one."""
    result = []
    for axis, size in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis)))
        result.append((int(hit[0]), int(hit[-1]) + 1) if len(hit) else (0, size))
    return result


def window(images: Sequence[np.ndarray], interest: np.ndarray) -> tuple[slice, slice, slice]:
    """What to show: the images without their padding, closed in on the structures where these are small."""
    content = np.logical_or.reduce([image > image.min() for image in images])
    result = []
    for (low, high), (first, last), size in zip(_bounds(content), _bounds(interest > 0), interest.shape):
        margin = max(6, int(0.4 * (last - first)))
        low, high = max(low, first - margin, 0), min(high, last + margin, size)
        result.append(slice(low, high) if high - low >= 3 else slice(0, size))
    return tuple(result)


def extent_of(box: Sequence[slice], spacing: np.ndarray) -> list[float]:
    """Size of a window in mm."""
    return [(part.stop - part.start) * step for part, step in zip(box, spacing)]


def best_slices(interest: np.ndarray, box: Sequence[slice]) -> list[int]:
    """Along each axis the slice with the most different structures and, among these, the most voxels of them."""
    values = [value for value in np.unique(interest) if value != 0]
    if not values:
        return [(part.start + part.stop) // 2 for part in box]
    result = []
    for axis in range(3):
        rest = tuple(k for k in range(3) if k != axis)
        areas = np.array([(interest == value).sum(axis=rest) for value in values], dtype=float)
        # the geometric mean favours a slice that shows every structure well
        score = np.log(areas + 1).sum(axis=0)
        result.append(int(score.argmax()))
    return result


def quarters(interest: np.ndarray, box: slice, axis: int) -> list[int]:
    """Slices a quarter, half and three quarters through those that show a structure, or, where none does, through the window."""
    hit = np.flatnonzero(interest.any(axis=tuple(k for k in range(3) if k != axis)))
    hit = hit if len(hit) else np.arange(box.start, box.stop)
    return [int(hit[round(share * (len(hit) - 1))]) for share in (0.25, 0.5, 0.75)]


def grey_limits(volume: np.ndarray) -> tuple[float, float]:
    """What is black and what white: all but the darkest 0.5 and the brightest 0.3 percent lies between."""
    low, high = (float(value) for value in np.percentile(volume, (0.5, 99.7)))
    return low, high if high > low else low + 1


def mean_dice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the labels of ``truth``."""
    return mean_of([dice(prediction == value, truth == value) for value in np.unique(truth) if value != 0])


def _outline(mask: np.ndarray) -> np.ndarray:
    """The mask as a smooth function whose half level is its border: contours without stairs, moved by less than half a voxel."""
    return ndimage.gaussian_filter(mask.astype(np.float32), 0.6)


def draw_contours(axis: Axes, label: np.ndarray | None, colour: str, width: float = 1.5, style: str = "solid") -> None:
    """Outline of every structure of a slice of a label map, if there is one."""
    if label is None:
        return
    for value in np.unique(label):
        if value != 0:
            axis.contour(_outline(label == value), levels=[0.5], colors=[colour], linewidths=width, linestyles=style)


def fill(axis: Axes, mask: np.ndarray, colour: str) -> None:
    """A structure of a slice, outlined and filled."""
    if mask.any():
        smooth = _outline(mask)
        axis.contourf(smooth, levels=[0.5, 2], colors=[colour], alpha=0.45)
        axis.contour(smooth, levels=[0.5], colors=[colour], linewidths=1.3)
