"""Structures that a convention of labelling divides by a plane, such as head and body of the hippocampus, which look alike where they meet.

Where that plane lies is one number an image, and a network that answers voxel by voxel does not know it. The labels tell which
structures are so divided, and across which axis of the grid.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation
from scipy import ndimage

from tools.data.decathlon import Case
from tools.data.geometry import load_volume
from tools.data.plan import turn_to

__all__ = ["Division", "divisions_of_labels", "find_divisions"]

MOST_CASES = 20  # that are looked at: a convention is the same in all
# Means over cases, of the faces between a voxel of one structure and one of the other, and of the voxels of both. A natural border
# that happens to be nearly plane, such as the midline of a brain, is a little tilted in every image, and fails the first; bones that
# touch where they are round fail the second (two balls that press into each other by a tenth of their size have 0.3):
FLAT = 0.6  # least share of faces that lie in one plane
BROAD = 0.4  # least area of the faces there, by the largest cross-section of the structure that has the smaller one
MISPLACED = 0.02  # greatest share of voxels on the wrong side of the best plane
FACES = 10  # least number of faces


@dataclass(frozen=True)
class Division:
    """Two structures on the two sides of a plane across an axis of the grid.

    Attributes:
        axis: 0, 1 or 2.
        lower: label value of the structure at the smaller indices.
        upper: that of the other one.

    Raises:
        ValueError: the axis is none of a volume, or both structures are one.
    """

    axis: int
    lower: int
    upper: int

    def __post_init__(self) -> None:
        if self.axis not in (0, 1, 2):
            raise ValueError(f"the axis of a division must be 0, 1 or 2, not {self.axis}")
        if self.lower == self.upper:
            raise ValueError(f"a division needs two structures, not {self.lower} twice")


def find_divisions(cases: Sequence[Case], orientation: str) -> list[dict[str, Any]]:
    """The divisions of a data set, from the labels of 20 of its cases.

    Args:
        cases: those whose labels may be looked at, spread over all of them; cases without one are passed over.
        orientation: of the network's grid, "RAS"; the axes count along it.

    Returns:
        fields of :class:`Division`, as a plan keeps them.

    Raises:
        DataError: a label is missing or not readable.
    """
    labelled = [case for case in cases if case.label is not None]
    places = np.linspace(0, len(labelled) - 1, min(len(labelled), MOST_CASES)).round().astype(int)
    stored = (load_volume(labelled[place].label) for place in places)
    turned = (apply_orientation(volume, turn_to(orientation, affine)) for volume, affine in stored)
    return [asdict(division) for division in divisions_of_labels(turned)]


def divisions_of_labels(volumes: Iterable[np.ndarray]) -> list[Division]:
    """The divisions that all of some label maps (D, H, W) show, background 0.

    Two structures are divided by a plane across an axis if, as means over the maps that hold both, there are at least 10 faces between a
    voxel of one and a voxel of the other, 60 % of these lie in one plane and are there 40 % of the largest cross-section of the structure
    whose largest one is smaller, and at most 2 % of the voxels of both lie on the wrong side of the best plane.
    """
    found: dict[Division, list[tuple[float, ...]]] = defaultdict(list)
    together: Counter[frozenset[int]] = Counter()
    for volume in volumes:
        box = ndimage.find_objects((volume != 0).view(np.int8))
        if not box:
            continue
        volume = volume[box[0]]
        profiles = _profiles(volume)
        together.update(frozenset(pair) for pair in combinations(profiles, 2))
        for division, shape in _measured(volume, profiles).items():
            found[division].append(shape)
    divisions = []
    for division, shapes in found.items():
        # Maps in which the two do not touch have no face in a plane.
        flat, broad, faces, _ = np.sum(shapes, axis=0) / together[frozenset((division.lower, division.upper))]
        misplaced = np.mean(shapes, axis=0)[-1]
        if flat >= FLAT and broad >= BROAD and misplaced <= MISPLACED and faces >= FACES:
            divisions.append(division)
    return sorted(divisions, key=lambda division: (division.axis, division.lower, division.upper))


def _profiles(volume: np.ndarray) -> dict[int, list[np.ndarray]]:
    """Label value to its number of voxels in every slice across each of the three axes."""
    values, place = np.unique(volume, return_inverse=True)
    profiles: dict[int, list[np.ndarray]] = {int(value): [] for value in values if value}
    for axis, length in enumerate(volume.shape):
        slices = np.arange(length).reshape([-1 if k == axis else 1 for k in range(3)])
        cells = np.bincount((place.reshape(volume.shape) * length + slices).ravel(), minlength=len(values) * length)
        for value, counts in zip(values.tolist(), cells.reshape(-1, length), strict=True):
            if value:
                profiles[int(value)].append(counts)
    return profiles


def _measured(volume: np.ndarray, profiles: dict[int, list[np.ndarray]]) -> dict[Division, tuple[float, ...]]:
    """Of every two structures that touch, along each axis: share of faces in one plane, and of the smaller one's largest cross-section
    that these are; all faces; share of voxels misplaced."""
    planes: dict[Division, Counter[int]] = defaultdict(Counter)
    faces: Counter[frozenset[int]] = Counter()
    for axis in range(3):
        along = np.moveaxis(volume, axis, 0)
        lower, upper = along[:-1], along[1:]
        between = (lower != upper) & (lower != 0) & (upper != 0)
        triples = np.stack([lower[between], upper[between], np.nonzero(between)[0]]).astype(np.int64)
        for a, b, plane, count in np.vstack(np.unique(triples, axis=1, return_counts=True)).T.tolist():
            planes[Division(axis, a, b)][plane] += count
            faces[frozenset((a, b))] += count
    result = {}
    for division, counts in planes.items():
        total = faces[frozenset((division.lower, division.upper))]
        sections = [profiles[value][division.axis] for value in (division.lower, division.upper)]
        plane = max(counts.values())
        result[division] = (plane / total, plane / min(section.max() for section in sections), total, _misplaced(*sections))
    return result


def _misplaced(lower: np.ndarray, upper: np.ndarray) -> float:
    """Share of the voxels of two structures, (n,) by slice, on the wrong side of the plane that has fewest of them there."""
    # Before the plane k lie the slices 0 .. k - 1: wrong are the upper structure's there, and the lower one's beyond.
    wrong = np.append(0, np.cumsum(upper - lower)) + lower.sum()
    return float(wrong.min() / (lower.sum() + upper.sum()))
