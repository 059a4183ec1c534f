from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.data.cropping import voxels_on_grid, warn_of_cropping
from tools.data.decathlon import Case
from tools.data.files import write_nifti
from tools.data.plan import Plan

PLAN = Plan(labels={0: "background", 1: "bone"}, spacing=(1, 2, 3), size=(16, 32, 16))


def image_of(folder: Path, name: str, shape: tuple[int, int, int], affine: np.ndarray | None = None) -> Case:
    """An image, by default of voxels of ``PLAN``."""
    write_nifti(folder / f"{name}.nii.gz", np.zeros(shape, np.float32), np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    return Case(name, folder / f"{name}.nii.gz")


def test_voxels_on_the_grid(tmp_path):
    """5 voxels of 3 mm to the left, 12 of 4.5 mm upwards and 10 of 2 mm to the front are 15, 54 and 20 mm."""
    affine = np.zeros((4, 4))
    affine[[0, 2, 1, 3], [0, 1, 2, 3]] = (-3.0, 4.5, 2.0, 1.0)
    assert voxels_on_grid(image_of(tmp_path, "turned", (5, 12, 10), affine), PLAN).tolist() == [15, 10, 18]


def test_cropped_images_are_warned_of_in_one_line(tmp_path, caplog):
    shapes = {"fits": (16, 32, 16), "wide": (21, 32, 16), "high": (16, 32, 19)}
    warn_of_cropping((image_of(tmp_path, name, shape) for name, shape in shapes.items()), PLAN)
    assert [record.getMessage() for record in caplog.records] == [
        "2 image(s) are larger than the network's grid, 16 x 32 x 16, and cropped to it about their centre, "
        f"such as {tmp_path / 'wide.nii.gz'}: 21 x 32 x 16 voxels of 1 x 2 x 3 mm"
    ]


def test_images_that_fit(tmp_path, caplog):
    warn_of_cropping([image_of(tmp_path, "fits", (16, 32, 16)), image_of(tmp_path, "smaller", (3, 2, 1))], PLAN)
    assert not caplog.records
