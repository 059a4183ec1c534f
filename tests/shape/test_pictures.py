from __future__ import annotations

import numpy as np
import pyvista
from skimage.io import imread

from tools.shape.pdm import PointDistributionModel
from tools.shape.pictures import modes_picture, statistics_picture
from tools.shape.sampling import farthest_point_order
from tools.shape.statistics import compactness
from tools.shape.surfaces import from_polydata


def test_pictures_are_drawn_without_a_display(tmp_path):
    template = from_polydata(pyvista.Icosphere(radius=10.0, nsub=2))
    points = template.vertices[farthest_point_order(template.vertices, 24)]
    stretches = np.random.default_rng(0).normal(1, 0.1, size=(6, 1, 3))
    model = PointDistributionModel.fit(points * stretches)
    modes_picture(tmp_path / "modes.png", model, template, points, modes=2)
    statistics_picture(tmp_path / "statistics.png", {"ours": {"compactness": compactness(model)}, "other": {}})
    for name in ("modes.png", "statistics.png"):
        picture = imread(tmp_path / name)[..., :3]
        assert picture.std() > 5
    assert not list(tmp_path.glob(".writing-*"))
