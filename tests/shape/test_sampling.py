from __future__ import annotations

import numpy as np
import pytest

from tools.shape.sampling import farthest_point_order, scale_sizes


def test_order_on_a_line():
    line = np.array([[x, 0.0, 0.0] for x in (0, 1, 2, 3, 4, 10)])
    assert farthest_point_order(line, 4).tolist() == [5, 0, 4, 2]


def test_beginnings_are_smaller_choices():
    points = np.random.default_rng(0).normal(size=(200, 3))
    assert (farthest_point_order(points, 64)[:16] == farthest_point_order(points, 16)).all()
    assert len(set(farthest_point_order(points, 200).tolist())) == 200


def test_start_can_be_chosen():
    assert farthest_point_order(np.eye(3), 1, start=2).tolist() == [2]
    line = np.array([[x, 0.0, 0.0] for x in (0, 1, 2, 3, 4, 10)])
    assert farthest_point_order(line, 4, start=[2, 1]).tolist() == [2, 1, 5, 4]


@pytest.mark.parametrize("count", [0, 4])
def test_count_out_of_range(count):
    with pytest.raises(ValueError, match="cannot choose"):
        farthest_point_order(np.eye(3), count)


@pytest.mark.parametrize(("points", "sizes"), [(512, [64, 128, 256, 512]), (100, [100]), (384, [96, 192, 384]), (64, [64])])
def test_scales(points, sizes):
    assert scale_sizes(points) == sizes
