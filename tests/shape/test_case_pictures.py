from __future__ import annotations

import numpy as np
import pytest
from skimage.io import imread

from tools.shape.case_pictures import ScoredSurface, best_median_worst, errors_picture, surfaces_picture
from tools.shape.surfaces import label_surface


def scored(name: str, error: float, seed: int = 0) -> ScoredSurface:
    label = np.zeros((16, 14, 12), np.uint8)
    label[3:13, 4:10, 4:8] = 1
    surface = label_surface(label, np.eye(4))
    return ScoredSurface(name, error, surface, error * np.random.default_rng(seed).random(len(surface.vertices)))


@pytest.mark.parametrize(("errors", "chosen"), [((3, 1, 2), (1, 2, 3)), ((4, 1, 3, 2), (1, 2, 4)), ((5,), (5, 5, 5))])
def test_best_median_and_worst(errors, chosen):
    found = best_median_worst([scored(str(error), error) for error in errors])
    assert list(found) == ["best", "median", "worst"]
    assert tuple(case.error for case in found.values()) == chosen


def test_none_to_choose_from():
    with pytest.raises(ValueError, match="no case"):
        best_median_worst([])


def test_surfaces_are_drawn_from_both_sides(tmp_path):
    surfaces_picture(tmp_path / "surfaces.png", {"best": scored("a", 0.2), "worst": scored("b", 2.0, 1)})
    picture = imread(tmp_path / "surfaces.png")[..., :3].astype(int)
    background = picture[0, 0]
    drawn = (np.abs(picture - background).sum(-1) > 60).mean(1)
    half = len(drawn) // 2
    assert drawn[:half].max() > 0.1
    assert drawn[half:].max() > 0.1


def test_boxes_of_errors(tmp_path):
    errors_picture(tmp_path / "scales.png", {"64 points": [1.0, 2.0, 3.0], "512 points": [0.5, 1.0, 1.5]}, "RMSE, mm")
    picture = imread(tmp_path / "scales.png")[..., :3].astype(int)
    assert (np.abs(picture - picture[0, 0]).sum(-1) > 60).mean() > 0.02
