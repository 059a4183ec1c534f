from __future__ import annotations

import pytest
import torch

from tools.registration.affine import affine_ddf, fit_affine

GRID = torch.zeros(1, 1, 9, 12, 7)
MATRIX = torch.tensor([[[1.1, 0.1, 0.0, 2.0], [-0.2, 0.9, 0.05, -1.0], [0.0, 0.1, 1.0, 0.5]]])


def identity(batch: int = 1) -> torch.Tensor:
    return torch.cat((torch.eye(3), torch.zeros(3, 1)), dim=1).repeat(batch, 1, 1)


def test_identity():
    assert affine_ddf(identity(2), GRID).abs().max() == 0


@pytest.mark.parametrize(
    ("voxel", "expected"),
    [
        ((4, 5, 3), (2.0 + 0.1 * -0.5, -1.0 - 0.1 * -0.5, 0.5 + 0.1 * -0.5)),  # half a voxel below the centre of the second axis
        ((0, 0, 0), (2.0 + 0.1 * -4 + 0.1 * -5.5, -1.0 - 0.2 * -4 - 0.1 * -5.5 + 0.05 * -3, 0.5 + 0.1 * -5.5)),
    ],
)
def test_displacement_at_a_voxel(voxel, expected):
    assert affine_ddf(MATRIX, GRID)[0, :, voxel[0], voxel[1], voxel[2]].tolist() == pytest.approx(expected, abs=1e-5)


def test_fit_recovers_the_matrix():
    torch.testing.assert_close(fit_affine(affine_ddf(MATRIX, GRID)), MATRIX, atol=1e-4, rtol=0)


def test_every_sample_has_its_own():
    matrices = torch.cat((MATRIX, identity()))
    torch.testing.assert_close(fit_affine(affine_ddf(matrices, GRID)), matrices, atol=1e-4, rtol=0)


def test_weights_leave_out_what_moves_otherwise():
    ddf, weights = affine_ddf(MATRIX, GRID), torch.ones(1, 1, 9, 12, 7)
    ddf[:, :, :3] += 40
    weights[:, :, :3] = 0
    torch.testing.assert_close(fit_affine(ddf, weights), MATRIX, atol=1e-4, rtol=0)
    assert (fit_affine(ddf) - MATRIX).abs().max() > 1


@pytest.mark.parametrize("weights", [torch.zeros(1, 1, 9, 12, 7), torch.zeros(1, 1, 9, 12, 7).index_fill_(2, torch.tensor([4]), 1.0)])
def test_what_the_weights_leave_open_stays_finite(weights):
    assert fit_affine(affine_ddf(MATRIX, GRID), weights).isfinite().all()


def test_no_weight_at_all_is_the_identity():
    torch.testing.assert_close(fit_affine(affine_ddf(MATRIX, GRID), torch.zeros(1, 1, 9, 12, 7)), identity(), atol=1e-5, rtol=0)


def test_mixed_precision_does_not_round_positions():
    grid = torch.zeros(1, 1, 80, 4, 4)
    exact = affine_ddf(MATRIX, grid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = affine_ddf(MATRIX, grid)
        fitted = fit_affine(exact)
    torch.testing.assert_close(mixed, exact)
    torch.testing.assert_close(fitted, MATRIX, atol=1e-3, rtol=0)
