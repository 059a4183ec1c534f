"""Cases as the networks see them."""

from __future__ import annotations

import os

from monai.transforms import Compose, Lambdad

from tools.bundle.transforms import KeepKeysd
from tools.data.checks import check_images
from tools.data.decathlon import read_images
from tools.data.geometry import preprocessing
from tools.data.plan import Plan

__all__ = ["case_transforms", "images_to_segment"]


def case_transforms(plan: Plan) -> Compose:
    """From paths to tensors: "image" (1, D, H, W) in [0, 1] and, where there is one, "label" (1, D, H, W) of channel numbers."""
    return Compose(
        [
            KeepKeysd(["name", "image", "label"], allow_missing_keys=True),
            *preprocessing(plan).transforms,
            Lambdad("label", plan.to_channels, allow_missing_keys=True),
        ]
    )


def images_to_segment(dataset_dir: str | os.PathLike) -> list[dict[str, str]]:
    """The images of a data set's test list, of all its lists, or of a folder, checked, as MONAI data dictionaries.

    Raises:
        DataError: there is no image, or one has a fault.
    """
    cases = read_images(dataset_dir)
    check_images(cases)
    return [{"image": str(case.image)} for case in cases]
