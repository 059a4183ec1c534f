"""Tiny data sets for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from blobs import write_dataset

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def tiny_dataset(tmp_path: Path) -> Path:
    """A Decathlon-style folder: six labelled cases ``case_00`` .. ``case_05`` of 16 to 23 voxels a side, 1 mm, label values 1 and 2."""
    return write_dataset(tmp_path / "blobs")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the repository; the test is skipped where there is none."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    return path
