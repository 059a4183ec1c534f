from __future__ import annotations

import math

import pytest
import torch
from monai.losses import GlobalMutualInformationLoss
from torch import nn

from deepatlas.losses import RegistrationLoss, SegmentationLoss
from tools.networks.registration import RegistrationOutput


class Constant(nn.Module):
    """Stands for a similarity or a regulariser and notes what it was given."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.given = value, ()

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        self.given = given
        return torch.tensor(self.value)


def one_hot(*planes: int) -> torch.Tensor:
    """(1, 2, 4, 4, 4), class 1 in the named planes of the first axis."""
    label = torch.zeros(1, 1, 4, 4, 4)
    label[:, :, list(planes)] = 1
    return torch.cat((1 - label, label), dim=1)


def output(shift: float = 0.0, logits: bool = False) -> RegistrationOutput:
    ddf = torch.zeros(1, 3, 4, 4, 4)
    ddf[:, 0] = shift
    half = torch.zeros(1, 2, 2, 2, 2) if logits else None  # softmax: 0.5 everywhere
    return RegistrationOutput(ddf, ddf[..., ::2, ::2, ::2], half, half)


WEIGHTS = {"similarity_weight": 2.0, "smoothness_weight": 3.0, "anatomy_weight": 5.0, "feature_weight": 7.0}


def loss() -> RegistrationLoss:
    return RegistrationLoss(Constant(0.25), Constant(0.5), **WEIGHTS)


def test_unsupervised():
    image = torch.rand(1, 1, 4, 4, 4)
    parts = loss()(output(), image, image)
    assert [float(part) for part in parts] == [2.0, 0.5, 1.5, 0.0, 0.0]


@pytest.mark.parametrize(
    ("shift", "fixed", "moving", "dice"),
    [
        (0.0, (1, 2), (1, 2), 1.0),
        (0.0, (0, 1), (1, 2), 0.5),
        (1.0, (0, 1), (1, 2), 1.0),  # fixed voxel p looks at p + 1
        (0.5, (1,), (1,), 2 * 0.5 / 2.0),  # the moving plane is smeared over planes 0 and 1, half of it each
    ],
)
def test_anatomy_is_the_dice_of_the_warped_segmentation(shift, fixed, moving, dice):
    image = torch.rand(1, 1, 4, 4, 4)
    parts = loss()(output(shift), image, image, one_hot(*fixed), one_hot(*moving))
    assert float(parts.anatomy) == pytest.approx(5 * (1 - dice), abs=1e-4)
    assert float(parts.loss) == pytest.approx(2.0 + 5 * (1 - dice), abs=1e-4)
    assert float(parts.features) == 0


def test_the_similarity_compares_the_warped_image_and_the_regulariser_sees_the_field():
    moving = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 4, 4).contiguous()
    fixed, made, found = torch.rand(1, 1, 4, 4, 4), loss(), output(1.0)
    made(found, fixed, moving, one_hot(0), one_hot(1))
    warped, target = made.similarity.given
    assert warped[0, 0, :, 0, 0].tolist() == [1, 2, 3, 3]
    assert target is fixed
    assert made.smoothness.given == (found.field,)


HALVES = one_hot(2, 3)[:, 1:]  # 1 in half of the voxels


@pytest.mark.parametrize(
    ("moving", "nats"), [(HALVES, math.log(2)), (1 - HALVES, math.log(2)), (HALVES.transpose(2, 3), 0.0)], ids=["same", "inverse", "across"]
)
def test_mutual_information_asks_for_no_contrast(moving, nats):
    """One of the images tells the other, whatever its intensities, or nothing of it."""
    similarity = GlobalMutualInformationLoss(num_bins=2, sigma_ratio=0.1)  # bins at 0 and 1, which do not overlap
    parts = RegistrationLoss(similarity, Constant(0.5), **WEIGHTS)(output(), HALVES, moving)
    assert float(parts.similarity) == pytest.approx(-2 * nats, abs=1e-5)


def test_mutual_information_of_images_in_place_and_shuffled():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 1, 8, 8, 8, generator=generator)
    shuffled = image.flatten()[torch.randperm(image.numel(), generator=generator)].view_as(image)
    similarity = GlobalMutualInformationLoss()
    assert float(similarity(image, image)) < float(similarity(shuffled, image)) - 1


def test_features():
    image = torch.rand(1, 1, 4, 4, 4)
    parts = loss()(output(logits=True), image, image, one_hot(0, 1), one_hot(1))
    # At half resolution the fixed label is 1 in one of two planes, the moving one 0.5; the features say 0.5 everywhere (8 voxels).
    fixed, moving = 2 * (4 * 0.5) / (8 * 0.5 + 4), 2 * (4 * 0.25) / (8 * 0.5 + 2)
    assert float(parts.features) == pytest.approx(7 * 0.5 * ((1 - fixed) + (1 - moving)), abs=1e-4)


def test_supervised_segmentation():
    logits = torch.zeros(1, 2, 4, 4, 4, requires_grad=True)
    parts = SegmentationLoss(supervised_weight=2.0, cross_entropy_weight=0.5)(logits, one_hot(0, 1))
    dice = 2 * (32 * 0.5) / (64 * 0.5 + 32)
    assert parts.supervised.item() == pytest.approx(2 * (1 - dice + 0.5 * math.log(2)), abs=1e-5)
    assert float(parts.anatomy) == 0
    assert parts.loss.item() == pytest.approx(parts.supervised.item())
    parts.loss.backward()
    assert logits.grad.abs().sum() > 0


def test_carried_segmentation_alone():
    parts = SegmentationLoss(anatomy_weight=3.0)(None, None, one_hot(0, 1), one_hot(1, 2))
    assert (float(parts.supervised), float(parts.anatomy), float(parts.loss)) == pytest.approx((0, 1.5, 1.5), abs=1e-4)
