"""Cases as the network sees them, and what is wrong with those it cannot use."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset
from monai.transforms import Compose, Lambdad, Transform
from monai.utils import convert_to_tensor

from progressive_deepssm.field import check_sizes
from progressive_deepssm.frame import to_frame
from tools.bundle.transforms import KeepKeysd
from tools.data.checks import DataError, check_images
from tools.data.cropping import by
from tools.data.decathlon import Case, read_images
from tools.data.geometry import load_volume, preprocessing
from tools.data.plan import Plan, grid_along, read_header
from tools.registration.fields import lps_affine
from tools.shape.augmentation import ShapeAugmentation, warp_case
from tools.shape.distance import point_distances
from tools.shape.particles import check_world, read_particle_set, read_particles
from tools.shape.procrustes import are_mirrored
from tools.shape.surfaces import label_surface

__all__ = [
    "ShapeDataset",
    "case_transforms",
    "check_on_grid",
    "check_shape_cases",
    "check_sides",
    "images_to_model",
]

FARTHEST = 3  # voxels, median distance of points from their surface
OUTSIDE = 0.05  # of a case's points, at most, where the grid crops its image


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
            :class:`tools.shape.augmentation.ShapeAugmentation` with everything else given; None where none are drawn.
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
        super().__init__(data, transform, **options)
        self.classes = classes
        self.augmentation = None
        if shapes is not None:  # now, so that a training that cannot draw any does not begin
            self.augmentation = shapes(np.array([np.asarray(self[index]["points"]) for index in range(len(self))]))

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


def check_on_grid(cases: Iterable[Case], plan: Plan) -> None:
    """Check that the points of cases lie on the network's grid, whose centre is that of the image.

    Raises:
        DataError: more than one in twenty of a case's points lie outside.
    """
    for case in cases:
        shape, affine = read_header(case)
        inverse = np.linalg.inv(lps_affine(affine))
        voxels = read_particles(case.particles) @ inverse[:3, :3].T + inverse[:3, 3]
        away = np.abs(voxels - (shape - 1) / 2) * np.linalg.norm(affine[:3, :3], axis=0)
        axes = grid_along(np.arange(3), affine, plan.orientation)[0].astype(int)
        outside = float((away[:, axes] > np.array(plan.size) * plan.spacing / 2).any(1).mean())
        if outside > OUTSIDE:
            grid = f"{by(plan.size)} voxels of {by(plan.spacing)} mm about the image's centre"
            what = f"{case.particles}: {outside:.0%} of the points lie outside the network's grid, {grid}"
            raise DataError(f"{what}: --size or --spacing, in fine-tuning those of the model, are too small")


def check_sides(cases: Sequence[Case]) -> None:
    """Check that no case's points are the mirror image of the first one's: a shape model of both sides is flat.

    Raises:
        DataError: a case's are; the line names it.
    """
    shapes = read_particle_set([case.particles for case in cases])
    mirrored = are_mirrored(shapes, shapes[0])
    if mirrored.any():
        odd = cases[int(np.argmax(mirrored))].particles
        raise DataError(f"{odd}: the points are mirror images of those of {cases[0].name}; train left and right sides each by itself")


def images_to_model(dataset_dir: str | os.PathLike, plan: Plan) -> list[dict[str, str]]:
    """The images of a data set's test list, of all its lists, or of a folder, checked, as MONAI data dictionaries.

    Raises:
        DataError: there is no image, one has a fault, or is much smaller or larger than the network's field.
    """
    cases = read_images(dataset_dir)
    check_images(cases)
    check_sizes(cases, plan)  # all of them, before the first is modelled
    return [{"image": str(Path(case.image))} for case in cases]
