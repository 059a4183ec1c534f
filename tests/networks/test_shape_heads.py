from __future__ import annotations

import numpy as np
import pytest
import torch

from tools.networks.shape_decoders import LinearShapeDecoder
from tools.networks.shape_heads import ErrorHead, PointRefiner, ScoreHead, sample_around
from tools.shape.pdm import PointDistributionModel


def ramp(size: tuple[int, int, int], stride: float = 1.0, offset: float = 0.0) -> torch.Tensor:
    """A map (1, 3, *size) whose channels are the voxel coordinates, in the image, of its own voxels."""
    axes = [torch.arange(n) * stride + offset for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None].float()


@pytest.mark.parametrize(("size", "grid"), [((12, 12, 12), (1, 0)), ((6, 6, 6), (2, 0)), ((6, 6, 6), (2, 0.5)), ((3, 3, 3), (4, 1.5))])
def test_samples_lie_where_the_grid_says(size, grid):
    positions = torch.tensor([[[4.0, 5.0, 6.0], [3.25, 6.5, 5.0]]])
    features = sample_around([ramp(size, *grid)], [grid], positions, radius=1.0).view(1, 2, 7, 3)
    torch.testing.assert_close(features[:, :, 0], positions)
    torch.testing.assert_close(features[:, :, 1], positions + torch.tensor([1.0, 0, 0]))
    torch.testing.assert_close(features[:, :, 6], positions - torch.tensor([0, 0, 1.0]))


def test_several_maps_stand_one_after_the_other():
    positions = torch.tensor([[[4.0, 5.0, 6.0]]])
    features = sample_around([ramp((12, 12, 12)), torch.ones(1, 2, 6, 6, 6)], [(1, 0), (2, 0)], positions, 1.0)
    assert features.shape == (1, 1, 7 * 5)
    assert (features.view(7, 5)[:, 3:] == 1).all()


def test_later_heads_begin_as_the_projection():
    generator = np.random.default_rng(0)
    decoder = LinearShapeDecoder(4, 2)
    decoder.fill(PointDistributionModel.fit(generator.normal(size=(6, 4, 3)) * 5))
    head = ScoreHead(5, 2, previous=3)
    head.fill(decoder)
    points = decoder.mean[None, :3] + torch.ones(2, 3, 3)
    scores = head(torch.randn(2, 5), decoder.mean, points)
    torch.testing.assert_close(scores, torch.ones(2, 9) @ head.projection.T)
    assert scores.abs().max() > 0.01


def test_a_refiner_begins_by_leaving_points_where_they_are():
    torch.manual_seed(0)
    refiner = PointRefiner(3, 5, [(1, 0)], hidden=8)
    points = torch.randn(2, 4, 3, requires_grad=True)
    displacement, log_error = refiner([torch.rand(2, 3, 8, 8, 8)], torch.randn(2, 5), points, torch.randn(4, 3), torch.ones(3), (8, 8, 8))
    assert displacement.shape == (2, 4, 3)
    assert log_error.shape == (2, 4)
    assert displacement.abs().max() < 0.05
    displacement.sum().backward()
    assert points.grad is None


def test_a_refiner_learns_to_find_a_surface():
    """The image is a ramp along the first axis: points anywhere learn to go to where it is zero."""
    torch.manual_seed(0)
    refiner = PointRefiner(1, 1, [(1, 0)], hidden=16)
    image = (ramp((16, 16, 16))[:, :1] - 7.5) / 4
    mean, optimizer = torch.randn(6, 3), torch.optim.Adam(refiner.parameters(), 0.02)
    for _ in range(80):
        points = torch.rand(4, 6, 3) * 8 - 4
        moved = points + refiner([image.expand(4, -1, -1, -1, -1)], torch.zeros(4, 1), points, mean, torch.ones(3), (16, 16, 16))[0]
        loss = moved[..., 0].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05  # from 5.3


def test_expected_errors_begin_at_a_millimetre_and_stay_within_limits():
    head, features = ErrorHead(4, 2), torch.randn(3, 4, requires_grad=True)
    assert head(features).abs().max() == 0
    torch.nn.init.constant_(head.linear.bias, 1000.0)
    head(features).sum().backward()
    assert head(features).max().item() == pytest.approx(3.0)
    assert features.grad is None
