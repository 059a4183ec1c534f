"""Runs of every bundle that take seconds: tiny networks, few steps, six phantoms of 32 x 32 x 32 voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.data.phantoms import write_phantoms

__all__ = ["BUNDLES", "CHOICES", "QUICK", "dataset_of", "write_data"]

BUNDLES = ("deepatlas", "multidomain_segmentation", "progressive_deepssm")
_RUN = {"epochs": 1, "epoch_length": 5, "holdout": 2, "validation_interval": 1, "precision": "float32", "progress_bar": False}
#: bundle to overrides of its training
QUICK: dict[str, dict[str, Any]] = {
    "deepatlas": {
        **_RUN,
        "pairs": 1,
        "registration_channels": [8, 8, 8, 8],
        "registration_hidden": [8, 8, 8, 8],
        "segmentation_channels": [8, 8, 8, 8],
    },
    "multidomain_segmentation": {
        **_RUN,
        "slices_per_domain": 2,
        "channels": [4, 8, 8, 8],
        "embedding": 8,
        "prior_channels": [4, 8, 8, 4],
        "prior_width": 4,
        "patch_size": [32, 32],
    },
    "progressive_deepssm": {
        **_RUN,
        "batch_size": 2,
        "scales": [16, 32],
        "modes": [2, 2],
        "refinements": [1, 1],
        "channels": [8, 8, 8, 8],
        "hidden": 16,
    },
}
#: bundle to overrides of its inference
CHOICES: dict[str, dict[str, Any]] = {"deepatlas": {}, "multidomain_segmentation": {"domain": "knee"}, "progressive_deepssm": {}}


def write_data(to: Path) -> Path:
    """Write phantoms of two joints, ``to/knee`` and ``to/ankle``, with labels and 32 points."""
    for joint in ("knee", "ankle"):
        write_phantoms(to / joint, joint, cases=6, size=(32, 32, 32), points=32)
    return to


def dataset_of(name: str, data: Path) -> Path:
    """What a bundle takes of :func:`write_data`: the folder of data sets where it learns from several domains, else the knees."""
    return data if name == "multidomain_segmentation" else data / "knee"
