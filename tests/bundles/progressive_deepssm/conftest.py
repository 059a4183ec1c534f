"""A tiny data set with known corresponding points, and one tiny trained model, for all tests of the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_runs import BundleRuns

from tools.data.files import write_nifti
from tools.shape.particles import write_particles
from tools.shape.sampling import farthest_point_order

BUNDLE = BundleRuns("progressive_deepssm")
call = BUNDLE.call

SHAPE = (30, 32, 28)
SPACING = 1.5
TINY = {
    "scales": [16, 32, 64],
    "modes": [4, 5, 6],
    "refinements": [1, 1, 1],
    "channels": [8, 8, 8, 8],
    "hidden": 32,
    "learning_rate": 0.005,
    "precision": "float32",
    "device": "cpu",
    "progress_bar": False,
    "train#dataset#num_workers": 0,
    "validate#dataset#num_workers": 0,
}


def sphere(points: int = 64) -> np.ndarray:
    """Points spread over the unit sphere, farthest first: (points, 3)."""
    number = np.arange(points) + 0.5
    polar, azimuth = np.arccos(1 - 2 * number / points), np.pi * (1 + 5**0.5) * number
    spread = np.stack((np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)), axis=1)
    return spread[farthest_point_order(spread, points)]


def ellipsoid(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A bright ellipsoid with a dark core, somewhere near the middle: image and label (X, Y, Z), points (64, 3) in voxels."""
    generator = np.random.default_rng(seed)
    position = np.stack(np.meshgrid(*(np.arange(n) for n in SHAPE), indexing="ij")).astype(float)
    centre = (np.array(SHAPE) - 1) / 2 + generator.uniform(-3, 3, 3)
    radii = np.array([8.0, 9.5, 7.0]) * generator.uniform(0.8, 1.2, 3)
    distance = np.sqrt((((position - centre.reshape(3, 1, 1, 1)) / radii.reshape(3, 1, 1, 1)) ** 2).sum(0))
    label = np.where(distance < 0.55, 2, np.where(distance < 1, 5, 0)).astype(np.uint8)
    smooth = 1 / (1 + np.exp((distance - 1) * 12)) - 0.6 / (1 + np.exp((distance - 0.55) * 12))
    image = 100 * (0.15 + 0.8 * smooth) + generator.normal(0, 3, SHAPE)
    return image.astype(np.float32), label, centre + radii * sphere()


def write_ellipsoids(root: Path, cases: int = 12) -> Path:
    """A Decathlon-style folder of ``cases`` ellipsoids with particles, 1.5 mm, label values 0, 2 and 5."""
    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = (10.0, -20.0, 5.0)
    entries = []
    for k in range(cases):
        image, label, points = ellipsoid(k)
        name = f"case_{k:02d}"
        write_nifti(root / "imagesTr" / f"{name}.nii.gz", image, affine)
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", label, affine)
        world = points @ affine[:3, :3].T + affine[:3, 3]
        write_particles(root / "particles" / f"{name}.particles", world * np.array([-1.0, -1.0, 1.0]))
        entries.append({"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"})
    labels = {"0": "background", "2": "core", "5": "shell"}
    (root / "dataset.json").write_text(json.dumps({"name": "ellipsoids", "labels": labels, "training": entries, "test": []}))
    return root


@pytest.fixture(scope="session")
def ellipsoid_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases of 30 x 32 x 28 voxels of 1.5 mm with 64 points each."""
    return write_ellipsoids(tmp_path_factory.mktemp("data") / "ellipsoids")


@pytest.fixture
def own_dataset(tmp_path: Path) -> Path:
    """Five cases that a test may spoil."""
    return write_ellipsoids(tmp_path / "ellipsoids", cases=5)


@pytest.fixture(scope="session")
def train(ellipsoid_dataset: Path) -> Callable[..., Path]:
    """A function that trains tiny networks: ``train(output_dir, *overlays, **overrides)`` returns the folder."""

    def train(output_dir: Path, *overlays: str, **overrides: Any) -> Path:
        call("training", "train", *overlays, **{"dataset_dir": ellipsoid_dataset, "output_dir": output_dir, **TINY, **overrides})
        return output_dir

    return train


@pytest.fixture(scope="session")
def model(train: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model, trained on the ellipsoids for some seconds."""
    # A rotation moves points along these nearly round surfaces, where nothing in the image shows it.
    still = {"augmentation#rotation": 1.0, "augmentation#elastic": 0.3}
    return train(tmp_path_factory.mktemp("model"), **{"epochs": 3, "epoch_length": 40, "validation_interval": 3, "holdout": 3, **still})


@pytest.fixture(scope="session")
def evaluated(model: Path, ellipsoid_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``metrics.csv`` and ``summary.json`` of the tiny model on its report cases."""
    output = tmp_path_factory.mktemp("evaluated")
    call("evaluating", "train", "evaluate", **{"dataset_dir": ellipsoid_dataset, "model_dir": model, "output_dir": output, **TINY})
    return output


@pytest.fixture(scope="session")
def dataset(ellipsoid_dataset: Path) -> Path:
    """What ``model`` was trained on."""
    return ellipsoid_dataset


@pytest.fixture(scope="session")
def bundle() -> BundleRuns:
    """The bundle under test."""
    return BUNDLE


@pytest.fixture(scope="session")
def bundle_call() -> Callable[..., None]:
    """Runs the bundle, for modules that cannot import from a conftest."""
    return call


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Overrides that make the networks tiny."""
    return dict(TINY)
