"""Cases as the networks see them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import Compose, Lambdad, MapTransform

from tools.data.geometry import preprocessing
from tools.data.plan import Plan

__all__ = ["case_transforms"]


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
