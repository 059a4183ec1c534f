from __future__ import annotations

import pytest
import torch
from monai.losses import BendingEnergyLoss

from tools.losses import AnatomyLoss
from tools.registration.displacement import compose, integrate_velocity, jacobian_determinant, resize_ddf
from tools.registration.instance import optimise_pair

SHAPE = (16, 18, 14)


def ball(centre: tuple[float, float, float]) -> torch.Tensor:
    grid = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in SHAPE), indexing="ij"))
    distance = (grid - torch.tensor(centre).view(3, 1, 1, 1)).norm(dim=0)
    return torch.sigmoid(2 * (5 - distance))[None, None]


FIXED, MOVING = ball((8.0, 8.0, 7.0)), ball((9.5, 8.0, 6.0))
START = torch.zeros(1, 3, *SHAPE)


def two_classes(foreground: torch.Tensor) -> torch.Tensor:
    return torch.cat((1 - foreground, foreground), dim=1)


@pytest.mark.parametrize("diffeomorphic", [True, False])
@pytest.mark.parametrize("control_spacing", [1, 3])
def test_moves_towards_the_fixed_image(diffeomorphic, control_spacing):
    result = optimise_pair(
        START, FIXED, MOVING, two_classes(FIXED), two_classes(MOVING), diffeomorphic=diffeomorphic, control_spacing=control_spacing
    )
    assert result.end["total"] < result.start["total"]
    perfect = AnatomyLoss()(two_classes(FIXED), two_classes(FIXED)).item()  # not 0, for the maps are soft
    assert result.end["anatomy"] - perfect < 0.5 * (result.start["anatomy"] - perfect)
    assert result.field.shape == result.ddf.shape == START.shape
    assert not result.field.requires_grad
    centre = result.ddf[0, :, 8, 8, 7]
    assert centre[0] > 0.5
    assert centre[2] < -0.2
    if diffeomorphic:
        torch.testing.assert_close(result.ddf, integrate_velocity(result.field, 7))
        assert (jacobian_determinant(result.ddf) > 0).all()


def test_segmentations_are_optional_and_losses_free_to_choose():
    def squares(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a - b).square().mean()

    result = optimise_pair(START, FIXED, MOVING, similarity=squares, regularity=BendingEnergyLoss(), regularity_weight=0.01, iterations=15)
    assert set(result.start) == {"similarity", "regularity", "total"}
    assert result.end["similarity"] < 0.6 * result.start["similarity"]
    assert result.start["total"] == pytest.approx(result.start["similarity"] + result.start["regularity"])


def test_symmetric_answers_to_the_swapped_pair_with_the_negative_velocity():
    there = optimise_pair(START, FIXED, MOVING, two_classes(FIXED), two_classes(MOVING), symmetric=True)
    back = optimise_pair(START, MOVING, FIXED, two_classes(MOVING), two_classes(FIXED), symmetric=True)
    torch.testing.assert_close(back.field, -there.field, atol=1e-3, rtol=1e-3)
    assert there.end == pytest.approx(back.end, abs=1e-4)
    assert there.end["anatomy"] < there.start["anatomy"]
    one_way = optimise_pair(START, FIXED, MOVING, two_classes(FIXED), two_classes(MOVING))
    other_way = optimise_pair(START, MOVING, FIXED, two_classes(MOVING), two_classes(FIXED))
    assert (one_way.field + other_way.field).abs().max() > 0.1


def test_symmetric_wants_velocities():
    with pytest.raises(ValueError, match="symmetric is of velocities"):
        optimise_pair(START, FIXED, MOVING, diffeomorphic=False, symmetric=True)


def test_the_field_may_be_coarser_than_the_images():
    result = optimise_pair(torch.zeros(1, 3, 8, 9, 7), FIXED, MOVING, two_classes(FIXED), two_classes(MOVING))
    assert result.field.shape == (1, 3, 8, 9, 7)
    assert result.ddf.shape == START.shape
    assert result.end["total"] < result.start["total"]
    torch.testing.assert_close(result.ddf, resize_ddf(integrate_velocity(result.field, 7), SHAPE))


def test_the_way_from_field_to_displacement_may_be_given():
    shift = torch.zeros_like(START)
    shift[:, 0], shift[:, 2] = 1.5, -1.0
    result = optimise_pair(START, FIXED, MOVING, iterations=2, displacement=lambda field: compose(shift, field))
    assert result.start["similarity"] < optimise_pair(START, FIXED, MOVING, iterations=0).start["similarity"] - 0.1
    torch.testing.assert_close(result.ddf, compose(shift, result.field))


def test_never_worse_than_the_start():
    result = optimise_pair(START, FIXED, FIXED, learning_rate=50.0, iterations=3)
    assert result.iteration == 0
    assert torch.equal(result.field, START)
    assert result.end == result.start


def test_no_iterations_return_the_start():
    start = torch.full_like(START, 0.25)
    result = optimise_pair(start, FIXED, MOVING, iterations=0)
    assert torch.equal(result.field, start)


def test_runs_in_inference_mode_and_leaves_its_inputs_alone():
    with torch.inference_mode():
        start, fixed, moving = START.clone(), FIXED.clone(), MOVING.clone()
        result = optimise_pair(start, fixed, moving, iterations=2)
        assert torch.equal(start, START)
    assert result.end["total"] < result.start["total"]


def test_same_inputs_same_result():
    first, second = (optimise_pair(START, FIXED, MOVING, iterations=3).field for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"field": START.repeat(2, 1, 1, 1, 1)}, "one pair"),
        ({"fixed_seg": two_classes(FIXED)}, "both segmentations"),
        ({"iterations": -1}, "iterations"),
        ({"control_spacing": 0}, "control_spacing"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimise_pair(**{"field": START, "fixed_image": FIXED, "moving_image": MOVING, **arguments})
