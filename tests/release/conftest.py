"""A small copy of a bundle with random weights, and its archive."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.bundle.checkpoint import save_weights
from tools.data.phantoms import write_phantoms
from tools.data.plan import Plan
from tools.release.evaluation import write_evaluation
from tools.release.pack import pack

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "deepatlas"
SIZE = (32, 32, 32)


def write_models(folder: Path) -> None:
    """Random weights of tiny networks, their plan, and an evaluation that agrees with the metadata beside them."""
    if str(BUNDLE) not in sys.path:
        sys.path.insert(0, str(BUNDLE))
    from deepatlas.networks import registration_from_plan, segmentation_from_plan

    channels = [8, 8, 8, 8]
    extra = {"segmentation": {"channels": channels}, "registration": {"channels": channels, "hidden": channels}}
    plan = Plan(labels={0: "background", 1: "anterior", 2: "posterior"}, size=SIZE, extra=extra)
    folder.mkdir()
    plan.save(folder / "plan.json")
    save_weights(folder / "model.pt", segmentation_from_plan(plan))
    save_weights(folder / "registration.pt", registration_from_plan(plan))


def small_bundle(root: Path, version: str = "0.1.0") -> Path:
    """A copy of deepatlas that is sound in every respect, with tiny weights: ``root/deepatlas``."""
    folder = root / "deepatlas"
    ignored = shutil.ignore_patterns("models", "output", "__pycache__", "*.png")
    shutil.copytree(BUNDLE, folder, ignore=ignored)
    write_models(folder / "models")
    path = folder / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["version"] = version
    metadata["changelog"] = {version: "a test"}
    metadata["eval_metrics"] = {"segmentation_dice": 0.8805}
    for entry in (*metadata["network_data_format"]["inputs"].values(), *metadata["network_data_format"]["outputs"].values()):
        entry["spatial_shape"] = list(SIZE)
    path.write_text(json.dumps(metadata, indent=4))
    summary = root / "summary.json"
    summary.write_text(json.dumps({"metrics": {"dice_mean": {"mean": 0.88046, "std": 0.03, "n": 4}}, "seed": 0}))
    write_evaluation(folder, {"network": summary}, {"segmentation_dice": ("network", "dice_mean")})
    summary.unlink()
    page = folder / "docs" / "README.md"
    page.write_text(page.read_text().replace("](registration.png)", "](data_license.txt)"))
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small, sound bundle of the repository; do not change it."""
    return small_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def new_bundle() -> Callable[..., Path]:
    """:func:`small_bundle`, for modules that cannot import from a conftest."""
    return small_bundle


@pytest.fixture(scope="session")
def archive(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle's archive."""
    return pack(bundle, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five knees of 32 x 32 x 32 voxels."""
    return write_phantoms(tmp_path_factory.mktemp("data") / "knees", "knee", cases=5, size=SIZE, points=32)


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, str]]:
    """A function from a folder to the sha256 of every file and the target of every link in it."""

    def contents(folder: Path) -> dict[str, str]:
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return contents
