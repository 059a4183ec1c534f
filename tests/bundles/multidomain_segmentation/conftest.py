"""Two tiny data sets of unlike anatomy, and one tiny trained model, for all tests of the bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_runs import BundleRuns

from tools.data.files import write_nifti

BUNDLE = BundleRuns("multidomain_segmentation")
call = BUNDLE.call

TINY = {
    "channels": [4, 8, 8, 8],
    "embedding": 8,
    "prior_channels": [4, 8, 8, 4],
    "prior_width": 4,
    "patch_size": [32, 32],
    "precision": "float32",
    "device": "cpu",
    "progress_bar": False,
    "train#dataset#num_workers": 0,
    "validate#dataset#num_workers": 0,
}
#: label value to name; values have gaps, and one name is in two domains
LABELS = {
    "disc": {"0": "background", "2": "core", "5": "shell"},
    "square": {"0": "background", "1": "shell"},
    "bars": {"0": "background", "3": "bar"},
}
SLICES = {"disc": 8, "square": 6, "bars": 7}


def volume(domain: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (S, 32, 32) float32 and its label map: bright discs with a dark core, dark squares on a bright ground, or thin bars."""
    random = np.random.default_rng((len(domain), seed))
    shape = (SLICES[domain], 32, 32)
    x, y = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
    x, y = x - 15.5 - random.uniform(-3, 3), y - 15.5 - random.uniform(-3, 3)
    if domain == "disc":
        distance = np.hypot(x, y) / random.uniform(8, 10)
        label = np.where(distance < 0.5, 2, np.where(distance < 1, 5, 0))
        image = np.choose(np.searchsorted([0, 2, 5], label), [0.1, 0.3, 0.9])
    elif domain == "square":
        label = (np.maximum(abs(x), abs(y)) < random.uniform(5, 8)).astype(int)
        image = 0.8 - 0.6 * label
    else:
        label = 3 * ((np.floor(x / 3) % 2 == 0) & (abs(y) < 10))
        image = 0.5 + 0.15 * label
    image = 100 * image[None] + random.normal(0, 4, shape)
    return image.astype(np.float32), np.broadcast_to(label, shape).astype(np.uint8)


def write_domain(root: Path, domain: str, cases: int = 6, labelled: int | None = None) -> Path:
    """A Decathlon-style folder ``root/domain`` of ``case_00`` ..., slices along the first axis, of which the first have a label."""
    folder, entries = root / domain, []
    for k in range(cases):
        image, label = volume(domain, k)
        name = f"case_{k:02d}.nii.gz"
        write_nifti(folder / "imagesTr" / name, image, np.diag([4.0, 1.0, 1.0, 1.0]))
        entries.append({"image": f"./imagesTr/{name}"})
        if labelled is None or k < labelled:
            write_nifti(folder / "labelsTr" / name, label, np.diag([4.0, 1.0, 1.0, 1.0]))
            entries[-1]["label"] = f"./labelsTr/{name}"
    content = {"name": domain, "labels": LABELS[domain], "slice_axis": 0, "training": entries, "test": []}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="session")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two data sets, ``disc`` and ``square``, six labelled cases each."""
    root = tmp_path_factory.mktemp("data") / "domains"
    for name in ("disc", "square"):
        write_domain(root, name)
    return root


@pytest.fixture(scope="session")
def third(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A further data set, ``bars``, of four cases."""
    return write_domain(tmp_path_factory.mktemp("third"), "bars", cases=4)


@pytest.fixture(scope="session")
def train(domains: Path) -> Callable[..., Path]:
    """A function that trains tiny networks: ``train(output_dir, *overlays, **overrides)`` returns the folder."""

    def train(output_dir: Path, *overlays: str, **overrides: Any) -> Path:
        call("training", "train", *overlays, **{"dataset_dir": domains, "output_dir": output_dir, **TINY, **overrides})
        return output_dir

    return train


@pytest.fixture(scope="session")
def model(train: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model of both domains, by the whole method."""
    return train(
        tmp_path_factory.mktemp("model"),
        **{
            "epochs": 4,
            "epoch_length": 20,
            "slices_per_domain": 4,
            "validation_interval": 4,
            "holdout": 2,
            "learning_rate": 0.01,
            "prior_learning_rate": 0.03,
        },
    )


@pytest.fixture(scope="session")
def dataset(domains: Path) -> Path:
    """What ``model`` was trained on."""
    return domains


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


@pytest.fixture(scope="session")
def make_domain() -> Callable[..., Path]:
    """:func:`write_domain`."""
    return write_domain


@pytest.fixture(scope="session")
def make_volume() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """:func:`volume`."""
    return volume
