"""Cases as the networks see them."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import DtypeLike
from monai.transforms import Activationsd, AsDiscreted, Compose, CopyItemsd, Invertd, Lambdad, MapTransform, SaveImaged

from tools.bundle.overrides import to_bool
from tools.data.checks import check_images
from tools.data.decathlon import read_images
from tools.data.files import AtomicNibabelWriter
from tools.data.geometry import preprocessing
from tools.data.plan import Plan

__all__ = ["case_transforms", "images_to_segment", "segmentation_postprocessing"]


class KeepKeysd(MapTransform):
    """Drops every key but the named ones, so that cases from anywhere (MONAI Label adds its own keys) batch together."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The named keys that are there."""
        return {key: data[key] for key in self.key_iterator(data)}


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


def segmentation_postprocessing(
    plan: Plan, preprocessing: Compose, output_dir: str | os.PathLike, probabilities: bool | str = False
) -> Compose:
    """From logits "pred" on the network's grid to label values in the image's geometry, written as ``<case>_seg.nii.gz``.

    Args:
        plan: the plan.
        preprocessing: what brought "image" to the network's grid.
        output_dir: folder for the files.
        probabilities: whether to write the soft output as well, ``<case>_prob.nii.gz`` (X, Y, Z, C).
    """

    def saver(key: str, postfix: str, dtype: DtypeLike) -> SaveImaged:
        return SaveImaged(
            key,
            output_dir=output_dir,
            output_postfix=postfix,
            output_dtype=dtype,
            separate_folder=False,
            resample=False,
            writer=AtomicNibabelWriter,
            print_log=False,
        )

    steps: list[Any] = [
        Activationsd("pred", softmax=True),
        Invertd("pred", transform=preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True),
    ]
    if to_bool(probabilities):
        steps += [CopyItemsd("pred", names="probabilities"), saver("probabilities", "prob", np.float32)]
    steps += [AsDiscreted("pred", argmax=True), Lambdad("pred", plan.to_values), saver("pred", "seg", plan.label_dtype)]
    return Compose(steps)
