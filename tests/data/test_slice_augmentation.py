from __future__ import annotations

import math

import pytest
import torch

from tools.data.augmentation import Augmentation, rotation_matrices

STILL = {"rotation": 0, "scaling": 0, "translation": 0, "elastic": 0}
PLAIN = {"gamma": 0, "contrast": 0, "bias": 0, "noise": 0, "blur": 0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disc(n: int = 32) -> torch.Tensor:
    axis = torch.arange(n) - (n - 1) / 2
    return torch.sigmoid(2 * (8 - (axis[:, None] ** 2 + 4 * axis[None] ** 2).sqrt()))[None, None]


def test_rotation_in_the_plane():
    matrix = rotation_matrices(torch.tensor([[math.pi / 2]]))[0]
    assert (matrix @ torch.tensor([1.0, 0.0])).tolist() == pytest.approx([0, 1], abs=1e-6)


def test_switched_off_it_changes_nothing():
    image = torch.rand(2, 1, 8, 9)
    off = Augmentation(**STILL, **PLAIN)
    torch.testing.assert_close(off.deform(image, image, generator())[0], image, atol=1e-5, rtol=0)
    torch.testing.assert_close(off.intensities(image, generator()), image)


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({**STILL, "translation": 2.0}, 2.0),
        ({**STILL, "scaling": 0.1}, 0.1 * 7.5),
        ({**STILL, "rotation": 10.0}, 1.2 * math.radians(10) * 7.5),
    ],
)
def test_displacement_stays_within_its_limits(options, limit):
    ddf = Augmentation(**options).displacement(torch.zeros(50, 1, 16, 16), generator())
    assert ddf.shape == (50, 2, 16, 16)
    assert 0.5 * limit < ddf.abs().max() <= limit * (1 + 1e-5)


def test_shift_by_whole_pixels():
    augmentation = Augmentation(**STILL)
    image = disc()
    augmentation.displacement = lambda image, _: torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 32, 32)
    moved, _ = augmentation.deform(image, image, generator())
    torch.testing.assert_close(moved[:, :, :29, 2:], image[:, :, 3:, :30], atol=1e-5, rtol=0)


def test_labels_move_with_the_image_and_stay_probabilities():
    image = disc()
    warped, moved = Augmentation().deform(image, torch.cat((1 - image, image), dim=1), generator(3))
    assert (warped - image).abs().max() > 0.2
    torch.testing.assert_close(moved[:, 1:], warped, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.sum(1), torch.ones(1, 32, 32), atol=1e-5, rtol=0)


def test_the_generator_alone_decides():
    image, augmentation = disc().repeat(2, 1, 1, 1), Augmentation()
    first, again, other = (
        (augmentation.deform(image, image, generator(seed))[0], augmentation.intensities(image, generator(seed))) for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not any(torch.equal(a, b) for a, b in zip(first, other))
    assert (first[0][0] - first[0][1]).abs().max() > 0.1


def test_intensities():
    image = torch.rand(3, 1, 16, 16)
    changed = Augmentation(probability=1.0).intensities(image, generator())
    assert changed.shape == image.shape
    assert changed.isfinite().all()
    assert ((changed - image).abs().amax((1, 2, 3)) > 0.01).all()
