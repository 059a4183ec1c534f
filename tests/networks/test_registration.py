from __future__ import annotations

import pytest
import torch

from tools.networks.encoders import ConvEncoder, SwinEncoder
from tools.networks.registration import FeaturePyramid, RegistrationNetwork, RegistrationOutput, VelocityDecoder
from tools.registration.affine import affine_ddf
from tools.registration.displacement import inverse_consistency_error, jacobian_determinant, resize_ddf, warp


def network(
    steps: int = 4, classes: int | None = None, swin: bool = False, passes: int = 0, symmetric: bool = False
) -> RegistrationNetwork:
    torch.manual_seed(0)
    encoder = SwinEncoder(1, embed_dim=12, levels=3) if swin else ConvEncoder(1, (6, 8, 8), (1, 1, 1))
    pyramid = FeaturePyramid(encoder, (6, 8, 8))
    return RegistrationNetwork(pyramid, VelocityDecoder((6, 8, 8), (6, 8, 8), steps, symmetric), classes, passes)


def far_moving(symmetric: bool) -> RegistrationNetwork:
    """A network whose corrections are voxels long, as if it had learnt."""
    made = network(steps=6, classes=2, symmetric=symmetric)
    for head in made.decoder.heads:
        torch.nn.init.normal_(head.weight, std=0.02)
    return made


@pytest.mark.parametrize("swin", [False, True])
def test_shapes(swin):
    fixed, moving = torch.rand(2, 2, 1, 32, 16, 32)
    output = network(classes=3, swin=swin)(fixed, moving)
    assert output.ddf.shape == (2, 3, 32, 16, 32)
    assert output.field.shape == (2, 3, 16, 8, 16)
    assert output.fixed_logits.shape == output.moving_logits.shape == (2, 3, 16, 8, 16)
    assert output.affine is None


def test_without_classes_there_are_no_logits():
    output = network()(*torch.rand(2, 1, 1, 16, 16, 16))
    assert output.fixed_logits is None
    assert output.moving_logits is None


def test_the_untrained_network_moves_next_to_nothing():
    assert network()(*torch.rand(2, 1, 1, 16, 16, 16)).ddf.abs().max() < 0.5


def test_a_sample_does_not_depend_on_its_batch():
    made, (fixed, moving) = network().eval(), torch.rand(2, 2, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(made(fixed, moving).ddf[:1], made(fixed[:1], moving[:1]).ddf, atol=1e-5, rtol=1e-4)


def test_every_parameter_learns():
    made = network(classes=2)
    output = made(*torch.rand(2, 1, 1, 16, 16, 16))
    (output.ddf.square().sum() + output.fixed_logits.square().sum() + output.moving_logits.square().sum()).backward()
    assert [name for name, p in made.named_parameters() if p.grad is None] == []


def test_displacement_of_a_constant_velocity_is_that_velocity_in_voxels_of_the_full_grid():
    field = torch.zeros(1, 3, 8, 8, 8)
    field[:, 0] = 0.5
    ddf = network().displacement(field, (16, 16, 16))
    assert ddf[0, 0].mean() == pytest.approx(0.5 * 15 / 7, abs=1e-5)
    assert ddf[0, 1:].abs().max() == 0


def test_large_velocities_do_not_fold_and_large_displacements_do():
    field = torch.nn.functional.interpolate(
        torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 4, size=(16,) * 3, mode="trilinear"
    )
    assert (jacobian_determinant(network(steps=6).displacement(field, (32,) * 3)) <= 0).float().mean() < 1e-3
    assert (jacobian_determinant(network(steps=0).displacement(field, (32,) * 3)) <= 0).float().mean() > 0.05


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ in shape"):
        network()(torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 32))


def test_pyramid_wants_channels_for_every_level():
    with pytest.raises(ValueError, match="2 entries, the encoder 3 levels"):
        FeaturePyramid(ConvEncoder(1, (4, 4, 4), (1, 1, 1)), (4, 4))


def test_symmetric_answers_to_the_swapped_pair_with_the_negative_velocity():
    made, (fixed, moving) = far_moving(symmetric=True).eval(), torch.rand(2, 2, 1, 16, 16, 16)
    with torch.no_grad():
        there, back = made(fixed, moving), made(moving, fixed)
    assert there.field.abs().max() > 0.5
    torch.testing.assert_close(back.field, -there.field, atol=1e-5, rtol=1e-4)
    assert inverse_consistency_error(there.ddf, back.ddf).max() < 0.1


def test_without_symmetry_there_and_back_are_two_answers():
    made, (fixed, moving) = far_moving(symmetric=False).eval(), torch.rand(2, 2, 1, 16, 16, 16)
    with torch.no_grad():
        there, back = made(fixed, moving), made(moving, fixed)
    assert inverse_consistency_error(there.ddf, back.ddf).min() > 0.2


def test_symmetric_leaves_an_image_as_it_is_by_itself():
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert far_moving(symmetric=True)(image, image).ddf.abs().max() < 1e-5
        assert far_moving(symmetric=False)(image, image).ddf.abs().max() > 0.1


def test_symmetric_in_training_hands_out_the_swapped_pairs_answer():
    made, (fixed, moving) = far_moving(symmetric=True), torch.rand(2, 2, 1, 16, 16, 16)
    with torch.no_grad():
        swapped, expected = made(fixed, moving).swapped, made(moving, fixed)
        assert made.eval()(fixed, moving).swapped is None
    for found, wanted in zip(swapped[:4], expected[:4], strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_symmetric_wants_velocities():
    with pytest.raises(ValueError, match="symmetric is of velocities"):
        VelocityDecoder((4, 4), (4, 4), integration_steps=0, symmetric=True)


class Shifting(RegistrationNetwork):
    """Answers a known affine of the world about the grid's centre, seen through whatever the moving image was moved by before."""

    def __init__(self, matrix: torch.Tensor, passes: int) -> None:
        torch.nn.Module.__init__(self)
        self.matrix, self.affine_passes, self.segmentation, self.calls = matrix, passes, None, []
        self.decoder = VelocityDecoder((2, 2), (2, 2), 0)

    def register(self, fixed, moving):
        self.calls.append(moving)
        ddf = affine_ddf(self.matrix, fixed) if len(self.calls) == 1 else torch.zeros(1, 3, *fixed.shape[2:])
        return RegistrationOutput(ddf, resize_ddf(ddf, tuple(n // 2 for n in fixed.shape[2:])), None, None)


MATRIX = torch.tensor([[[0.95, -0.2, 0.05, 1.5], [0.15, 1.05, 0.0, -2.0], [0.0, 0.1, 0.9, 0.5]]])


def test_affine_pass_takes_the_affine_out_of_the_first_answer():
    made = Shifting(MATRIX, passes=1).eval()
    moving = torch.rand(1, 1, 16, 24, 20)
    output = made(torch.rand(1, 1, 16, 24, 20), moving)
    expected = affine_ddf(MATRIX, moving)
    torch.testing.assert_close(output.affine, expected, atol=2e-3, rtol=0)
    # nothing is left to do in the second round, so the whole answer is the affine
    torch.testing.assert_close(output.ddf, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(made.calls[1], warp(moving, expected), atol=5e-3, rtol=0)


def test_no_affine_pass_while_training():
    made = Shifting(MATRIX, passes=1).train()
    assert made(*torch.rand(2, 1, 1, 16, 16, 16)).affine is None
    assert len(made.calls) == 1
