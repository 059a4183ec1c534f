"""Cases as the network sees them, and what is wrong with those it cannot use."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset
from monai.transforms import Compose, Lambdad, Transform
from monai.utils import convert_to_tensor

from progressive_deepssm.frame import to_frame
from tools.bundle.transforms import KeepKeysd
from tools.data.checks import DataError, check_images
from tools.data.decathlon import Case, read_images
from tools.data.geometry import load_volume, preprocessing
from tools.data.plan import Plan, grid_along, read_header
from tools.shape.augmentation import ShapeAugmentation, warp_case
from tools.shape.distance import point_distances
from tools.shape.particles import check_world, read_particles
from tools.shape.surfaces import label_surface

__all__ = ["ShapeDataset", "case_transforms", "check_shape_cases", "check_sizes", "images_to_model", "voxels_on_grid"]

FARTHEST = 3  # voxels, median distance of points from their surface


class LoadPoints(Transform):
    """From "particles", a path, to "points" (M, 3) float32 in the frame of the preprocessed "image"."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with "points" in place of "particles"."""
        result = {key: value for key, value in data.items() if key != "particles"}
        if "particles" in data:
            sizes = self.plan.extra["shape"]
            points = read_particles(data["particles"], sizes["points"])[: sizes["scales"][-1]]
            affine = np.asarray(data["image"].affine, dtype=np.float64)
            result["points"] = torch.from_numpy(to_frame(points, affine, self.plan)).float()
        return result


def case_transforms(plan: Plan) -> Compose:
    """From paths to tensors.

    "image" (1, D, H, W) in [0, 1]; where there are any, "label" (1, D, H, W) of channel numbers and "points" (M, 3) in the frame, mm.
    """
    return Compose(
        [
            KeepKeysd(["name", "image", "label", "particles"], allow_missing_keys=True),
            *preprocessing(plan).transforms,
            Lambdad("label", plan.to_channels, allow_missing_keys=True),
            LoadPoints(plan),
        ]
    )


class ShapeDataset(CacheDataset):
    """Cases of a data set, kept in memory, and after them an endless row of cases made from their shapes.

    Args:
        data: case dictionaries of paths.
        transform: :func:`case_transforms`.
        shapes: makes what draws the shapes, from the points (N, M, 3) of the cases of ``data`` and no others, such as
            :class:`tools.shape.augmentation.ShapeAugmentation` with everything else given. Called when the first is drawn.
        classes: channels of a label map, with the background.
        **options: of ``CacheDataset``.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Any,
        shapes: Callable[[np.ndarray], ShapeAugmentation] | None = None,
        classes: int = 2,
        **options: Any,
    ) -> None:
        self.shapes, self.classes = shapes, classes
        super().__init__(data, transform, **options)

    @cached_property
    def augmentation(self) -> ShapeAugmentation:
        """What draws the shapes."""
        return self.shapes(np.stack([np.asarray(self[index]["points"]) for index in range(len(self))]))

    def _transform(self, index: int) -> Any:
        """Case ``index``; those from ``len(self)`` on are drawn: the image of the nearest real case, warped to a drawn shape."""
        if index < len(self):
            return super()._transform(index)
        drawn = self.augmentation.sample(1, first=index - len(self))[0]
        case = self[drawn.case]
        image, label = (convert_to_tensor(case[key], track_meta=False) for key in ("image", "label"))
        one_hot = torch.cat([label == channel for channel in range(self.classes)]).float()
        image, one_hot = warp_case(image, one_hot, drawn.field)
        return {"image": image, "label": one_hot.argmax(0, keepdim=True), "points": torch.from_numpy(drawn.points).float()}


def voxels_on_grid(case: Case, plan: Plan) -> np.ndarray:
    """How many voxels of the plan's grid a case's image fills along each axis, (3,), from its header."""
    shape, spacing = grid_along(*read_header(case), plan.orientation)
    return np.round(shape * spacing / np.array(plan.spacing)).astype(int)


def check_sizes(cases: Iterable[Case], plan: Plan) -> None:
    """Check that images are no smaller than the network's field, which the plan keeps as ``extra["shape"]["field"]``.

    Raises:
        DataError: an image is; the line names it.
    """
    field = np.array(plan.extra["shape"]["field"])
    for case in cases:
        voxels = voxels_on_grid(case, plan)
        if (voxels < field).any():
            spacing, small, least = (" x ".join(f"{value:g}" for value in values) for values in (plan.spacing, voxels, field))
            raise DataError(f"{case.image}: {small} voxels of {spacing} mm are less than the network's field, {least}")


def check_shape_cases(cases: Sequence[Case], points: int, structure: int | None = None) -> None:
    """Check points and label maps of the cases to learn from.

    Args:
        cases: each with image, label and particles.
        points: how many points each must have.
        structure: label value that the points lie on; None for everything but the background.

    Raises:
        DataError: particle files of unequal length or unreadable, points far from their image or half of them from the surface, a label map
            without a surface.
    """
    for case in cases:
        shape, affine = read_header(case)
        particles = read_particles(case.particles, points)
        check_world(case.particles, particles, shape, affine)
        surface = label_surface(*load_volume(case.label), structure, name=case.label)
        away, voxel = float(np.median(point_distances(particles, surface))), float(np.linalg.norm(affine[:3, :3], axis=0).max())
        if away > FARTHEST * voxel:
            what = "all structures together" if structure is None else f"label value {structure}"
            raise DataError(f"{case.particles}: its points lie {away:.1f} mm from the surface of {what}; which --structure are they of?")


def images_to_model(dataset_dir: str | os.PathLike, plan: Plan) -> list[dict[str, str]]:
    """The images of a data set's test list, of all its lists, or of a folder, checked, as MONAI data dictionaries.

    Raises:
        DataError: there is no image, one has a fault, or is smaller than the network's field.
    """
    cases = read_images(dataset_dir)
    check_images(cases)
    check_sizes(cases, plan)
    return [{"image": str(Path(case.image))} for case in cases]
