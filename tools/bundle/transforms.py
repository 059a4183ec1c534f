"""MONAI transforms that bundles share: what a case may bring along, and what becomes of a segmentation."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import DtypeLike
from monai.transforms import Activationsd, AsDiscreted, Compose, CopyItemsd, Invertd, Lambdad, MapTransform, SaveImaged

from tools.bundle.overrides import to_bool
from tools.data.files import AtomicNibabelWriter
from tools.data.plan import Plan

__all__ = ["KeepKeysd", "segmentation_postprocessing", "storable"]


class KeepKeysd(MapTransform):
    """Drops every key but the named ones, so that cases from anywhere (MONAI Label adds its own keys) batch together."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The named keys that are there."""
        return {key: data[key] for key in self.key_iterator(data)}


def storable(values: torch.Tensor, dtype: np.dtype) -> torch.Tensor:
    """Label values that fit into ``dtype`` as uint8, or else int32: ITK, by which MONAI Label writes answers, has no int64."""
    return values.to(torch.uint8 if dtype == np.uint8 else torch.int32)


def segmentation_postprocessing(
    plan: Plan, preprocessing: Compose, output_dir: str | os.PathLike, probabilities: bool | str = False, write: bool = True
) -> Compose:
    """From logits "pred" on the network's grid to label values in the image's geometry, written as ``<case>_seg.nii.gz``.

    Args:
        plan: the plan.
        preprocessing: what brought "image" to the network's grid.
        output_dir: folder for the files.
        probabilities: whether to write the soft output as well, ``<case>_prob.nii.gz`` (X, Y, Z, C).
        write: whether to write the label map; of a network that did not learn to segment it is worth nothing.
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
    steps += [AsDiscreted("pred", argmax=True), Lambdad("pred", lambda channels: storable(plan.to_values(channels), plan.label_dtype))]
    if write:
        steps.append(saver("pred", "seg", plan.label_dtype))
    return Compose(steps)
