"""A tiny data set, and one tiny trained model, for all tests of the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_runs import BundleRuns

from tools.data.files import write_nifti

BUNDLE = BundleRuns("deepatlas")
call = BUNDLE.call

VALUES = (0, 2, 5)  # label values with gaps: channel numbers must not leak out
TINY = {
    "registration_channels": [8, 8, 8, 8],
    "registration_hidden": [8, 8, 8, 8],
    "segmentation_channels": [8, 8, 8, 8],
    "precision": "float32",
    "device": "cpu",
    "progress_bar": False,
    "train#dataset#num_workers": 0,
    "validate#dataset#num_workers": 0,
}


def ellipsoids(shape: tuple[int, int, int], seed: int, shift: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """A bright ellipsoid (5) with a dark core (2), somewhere near the middle; image (X, Y, Z) float32 and label uint8."""
    generator = np.random.default_rng(seed)
    position = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(float)
    centre = (np.array(shape) - 1) / 2 + generator.uniform(-shift, shift, 3)
    radii = np.array([8.0, 9.5, 7.0]) * generator.uniform(0.85, 1.15, 3)
    distance = np.sqrt((((position - centre.reshape(3, 1, 1, 1)) / radii.reshape(3, 1, 1, 1)) ** 2).sum(0))
    label = np.where(distance < 0.55, 2, np.where(distance < 1, 5, 0)).astype(np.uint8)
    smooth = 1 / (1 + np.exp((distance - 1) * 12)) - 0.6 / (1 + np.exp((distance - 0.55) * 12))
    image = 100 * (0.15 + 0.8 * smooth) + generator.normal(0, 3, shape)
    return image.astype(np.float32), label


def write_ellipsoids(root: Path, cases: int = 10, labelled: int | None = None, shape: tuple[int, int, int] = (30, 32, 28)) -> Path:
    """A Decathlon-style folder of ``cases`` ellipsoids, 1.5 mm, of which the first ``labelled`` have a label (all by default)."""
    affine = np.diag([1.5, 1.5, 1.5, 1.0])
    entries = []
    for k in range(cases):
        image, label = ellipsoids(shape, seed=k)
        name = f"case_{k:02d}.nii.gz"
        write_nifti(root / "imagesTr" / name, image, affine)
        entries.append({"image": f"./imagesTr/{name}"})
        if labelled is None or k < labelled:
            write_nifti(root / "labelsTr" / name, label, affine)
            entries[-1]["label"] = f"./labelsTr/{name}"
    labels = {"0": "background", "2": "core", "5": "shell"}
    (root / "dataset.json").write_text(json.dumps({"name": "ellipsoids", "labels": labels, "training": entries, "test": []}))
    return root


@pytest.fixture(scope="session")
def ellipsoid_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten labelled cases of 30 x 32 x 28 voxels of 1.5 mm, label values 0, 2 and 5."""
    return write_ellipsoids(tmp_path_factory.mktemp("data") / "ellipsoids")


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six cases, of which the first four have labels."""
    return write_ellipsoids(tmp_path_factory.mktemp("data") / "small", cases=6, labelled=4)


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
    return train(
        tmp_path_factory.mktemp("model"),
        **{
            "epochs": 6,
            "epoch_length": 45,
            "pairs": 2,
            "validation_interval": 6,
            "holdout": 3,
            "registration_learning_rate": 0.002,
            "segmentation_learning_rate": 0.008,
        },
    )


@pytest.fixture(scope="session")
def evaluated(model: Path, ellipsoid_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``metrics.csv`` and ``summary.json`` of the tiny model on its report cases."""
    output = tmp_path_factory.mktemp("evaluated")
    call("evaluating", "train", "evaluate", **{"dataset_dir": ellipsoid_dataset, "model_dir": model, "output_dir": output, **TINY})
    return output


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Overrides that make the networks tiny."""
    return dict(TINY)


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


def turned(degrees: float = 14.0) -> np.ndarray:
    """An oblique rotation (4, 4) of the world about an axis that is none of its own, too small to make other axes the closest."""
    axis, angle = np.array([1.0, 2.0, -1.5]), np.radians(degrees)
    axis /= np.linalg.norm(axis)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = (12.0, -30.0, 7.0)
    return matrix


@pytest.fixture(scope="session")
def other_geometry() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """A function from (volume, affine, thick) to the same content oblique, with permuted and flipped axes, and thick slices."""

    def change(volume: np.ndarray, affine: np.ndarray, thick: bool) -> tuple[np.ndarray, np.ndarray]:
        affine = turned() @ affine
        if thick:  # pairs of slices along the last axis are averaged
            volume = volume.reshape(*volume.shape[:2], -1, 2).mean(-1)
            affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0.5], [0, 0, 0, 1]])
        permutation = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # new axes 0, 1, 2 are old 2, 0, 1
        volume, affine = volume.transpose(2, 0, 1), affine @ permutation
        flip = np.diag([1.0, -1.0, 1.0, 1.0])
        flip[1, 3] = volume.shape[1] - 1
        return np.ascontiguousarray(volume[:, ::-1]), affine @ flip

    return change


@pytest.fixture(scope="session")
def back_to_plain() -> Callable[..., np.ndarray]:
    """The inverse of :func:`other_geometry` on a label map."""

    def change(volume: np.ndarray, thick: bool) -> np.ndarray:
        volume = volume[:, ::-1].transpose(1, 2, 0)
        return np.repeat(volume, 2, axis=2) if thick else volume

    return change
