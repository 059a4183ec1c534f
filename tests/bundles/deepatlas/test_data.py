from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deepatlas.data import DeepAtlasRunData, images_to_segment
from tools.data.plan import Plan

PLAN = Plan(labels={0: "background", 2: "core", 5: "shell"}, spacing=(1.5, 1.5, 1.5), size=(32, 32, 32))
SIZES = [((32, 32, 32), False), ((16, 32, 32), True)]


def warned(caplog: pytest.LogCaptureFixture, images: int) -> bool:
    """Whether there is the one warning, of so many images that the grid of 16 x 32 x 32 crops; or none at all."""
    messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(messages) <= 1
    return bool(messages) and messages[0].startswith(f"{images} image(s) are larger than the network's grid, 16 x 32 x 32")


def test_images_of_a_data_set_and_of_a_folder(ellipsoid_dataset):
    names = [f"case_{k:02d}.nii.gz" for k in range(10)]
    for folder in (ellipsoid_dataset, ellipsoid_dataset / "imagesTr"):
        assert [Path(case["image"]).name for case in images_to_segment(folder, PLAN)] == names


@pytest.mark.parametrize(("size", "crops"), SIZES)
def test_images_to_segment_that_the_grid_crops(ellipsoid_dataset, caplog, size, crops):
    images_to_segment(ellipsoid_dataset, replace(PLAN, size=size))
    assert warned(caplog, 10) is crops


@pytest.mark.parametrize(("size", "crops"), SIZES)
def test_images_to_learn_from_that_the_grid_crops(ellipsoid_dataset, tmp_path, caplog, size, crops):
    """Those of the report are not looked at."""
    options = {"split": {"holdout": 3, "folds": 2}, "plan": {"size": size, "spacing": 1.5}}
    DeepAtlasRunData(ellipsoid_dataset, tmp_path, **options).check()
    assert warned(caplog, 7) is crops


@pytest.mark.parametrize(("size", "crops"), SIZES)
def test_given_images_that_the_grid_crops(ellipsoid_dataset, tmp_path, caplog, size, crops):
    replace(PLAN, size=size).save(tmp_path / "plan.json")
    given = [{key: str(ellipsoid_dataset / folder / "case_00.nii.gz") for key, folder in (("image", "imagesTr"), ("label", "labelsTr"))}]
    DeepAtlasRunData(model_dir=tmp_path).check(given=given)
    assert warned(caplog, 1) is crops
