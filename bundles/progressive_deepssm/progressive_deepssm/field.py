"""Whether an image shows about as much as the training images did. Imports no meshes: MONAI Label's environment has no library for them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Compose, Transform

from tools.data.checks import DataError
from tools.data.cropping import by, voxels_on_grid, warn_of_cropping
from tools.data.decathlon import Case
from tools.data.geometry import preprocessing
from tools.data.plan import Plan

__all__ = ["FIELD", "CheckSize", "check_sizes", "image_transforms"]

FIELD = 0.75  # along each axis: what an image must show of the smallest training image, and the network's field of the image


def check_sizes(cases: Iterable[Case], plan: Plan, warn: bool = True) -> None:
    """Check that images show about the field of the training images; those that the grid crops are warned of, unless ``warn`` is false.

    The plan keeps the least field as ``extra["shape"]["field"]``, and the largest training image as ``extra["shape"]["largest"]`` where
    the grid crops that too. Along each axis, three quarters of an image must fit into the grid or into that image.

    Raises:
        DataError: an image is smaller, or larger; the line names it.
    """
    shape = plan.extra["shape"]
    field, largest = np.array(shape["field"]), np.maximum(plan.size, shape.get("largest", plan.size))
    cases = list(cases)
    sizes = [voxels_on_grid(case, plan) for case in cases]
    for case, voxels in zip(cases, sizes, strict=True):
        image = f"{case.image}: {by(voxels)} voxels of {by(plan.spacing)} mm"
        if (voxels < field).any():
            raise DataError(f"{image} are less than the network's field, {by(field)}")
        if (FIELD * voxels > largest).any():
            raise DataError(f"{image} are more than four thirds of the network's field, {by(largest)}; crop the image about the structure")
    if warn:
        warn_of_cropping(cases, plan, sizes)


class CheckSize(Transform):
    """:func:`check_sizes` of "image", a path, for clients that hand over one image at a time."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __call__(self, data: Mapping[Hashable, Any]) -> Mapping[Hashable, Any]:
        """The same data.

        Raises:
            DataError: the image is much smaller or larger than the network's field.
        """
        path = Path(data["image"])
        check_sizes([Case(path.name, path)], self.plan, warn=False)
        return data


def image_transforms(plan: Plan) -> Compose:
    """From "image", a path, to a tensor (1, D, H, W) in [0, 1], unless it is much smaller or larger than the network's field."""
    return Compose([CheckSize(plan), *preprocessing(plan, ["image"]).transforms])
