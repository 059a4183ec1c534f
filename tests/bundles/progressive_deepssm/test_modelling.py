from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from progressive_deepssm.modelling import DEFORMATION, ShapeModeller
from tools.data.plan import Plan
from tools.networks.shape_networks import ShapeOutput
from tools.registration.displacement import sample
from tools.shape.surfaces import Surface

POINTS = torch.tensor([[0.0, 0, 0], [4, -2, 6], [-5, 3, 1], [2, 2, -7]])
PLAN = Plan(labels={0: "background", 1: "bone"}, size=(32, 32, 16), spacing=(1.0, 1.0, 2.0))
TEMPLATE = Surface(POINTS.double().numpy(), np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]))


class Stubborn(nn.Module):
    """Sees the same points in every image, and calls them exact to 0.5 mm."""

    mean = POINTS

    def shape(self, image):
        points = POINTS[None].expand(len(image), -1, -1)
        return ShapeOutput((points,), ((points,),), torch.full(points.shape[:2], np.log(0.5)), torch.zeros(len(image), 2, *PLAN.size))


def predicted(samples: int) -> np.ndarray:
    modeller = ShapeModeller(Stubborn(), TEMPLATE, PLAN, precision="float32", uncertainty_samples=samples)
    return modeller.predict(torch.rand(1, *PLAN.size), np.eye(4)).uncertainty


def test_uncertainty_tells_how_far_the_points_of_deformed_images_lie():
    # Points that stay where they are in the deformed image come back displaced by the deformation there.
    ddf = DEFORMATION.displacement(torch.zeros(3, 1, *PLAN.size), torch.Generator().manual_seed(0))
    voxels = POINTS / torch.tensor(PLAN.spacing) + (torch.tensor(PLAN.size) - 1) / 2
    moved = sample(ddf, voxels.T[None, ..., None, None].expand(3, -1, -1, -1, -1))[..., 0, 0].transpose(1, 2)
    expected = (moved * torch.tensor(PLAN.spacing)).norm(dim=2).mean(0)
    np.testing.assert_allclose(predicted(3), (0.5 * expected).sqrt().numpy(), atol=1e-4)
    assert expected.min() > 0.1


def test_without_samples_the_network_is_asked():
    np.testing.assert_allclose(predicted(0), 0.5, rtol=1e-6)


def test_a_negative_number_of_samples():
    with pytest.raises(ValueError, match="uncertainty_samples must not be negative"):
        predicted(-1)
