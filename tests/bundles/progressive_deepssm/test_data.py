from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from progressive_deepssm.data import ShapeDataset, check_on_grid, check_shape_cases
from progressive_deepssm.field import check_sizes, image_transforms
from progressive_deepssm.frame import frame_affine, to_frame, to_world
from progressive_deepssm.run_data import mode_numbers, refinement_numbers, scale_numbers
from progressive_deepssm.sampling import CaseSampler, collate_cases
from tools.bundle.errors import cause
from tools.data.checks import DataError
from tools.data.decathlon import Case
from tools.data.files import write_nifti
from tools.data.plan import Plan
from tools.shape.augmentation import ShapeAugmentation
from tools.shape.particles import write_particles
from tools.shape.surfaces import label_surface

PLAN = Plan(labels={0: "background", 1: "bone"}, size=(16, 32, 16), spacing=(1.0, 2.0, 3.0))


def test_frame_of_an_upright_grid():
    """Voxel (8, 15, 10) of a grid at the origin: RAS (8, 30, 30) mm, LPS (-8, -30, 30); from the centre (0.5, -0.5, 2.5) voxels."""
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    np.testing.assert_allclose(to_frame(np.array([[-8.0, -30.0, 30.0]]), affine, PLAN), [[0.5, -1.0, 7.5]])


def test_world_and_back_under_any_header():
    affine = np.eye(4)
    affine[:3] = np.random.default_rng(0).normal(size=(3, 4)) * 5
    points = np.random.default_rng(1).normal(size=(7, 3)) * 20
    np.testing.assert_allclose(to_world(to_frame(points, affine, PLAN), affine, PLAN), points)


def test_surfaces_with_the_frames_affine_lie_in_the_frame():
    label = np.zeros(PLAN.size, dtype=np.uint8)
    label[6:10, 14:18, 6:10] = 1  # about the centre
    surface = label_surface(label, frame_affine(PLAN))
    np.testing.assert_allclose(surface.vertices.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(np.ptp(surface.vertices, axis=0) / PLAN.spacing, np.ptp(surface.vertices, axis=0)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("points", "scales", "expected"),
    [(512, None, [64, 128, 256, 512]), (512, "single", [512]), (512, [100, 300], [100, 300]), (48, None, [48]), (512, 64, [64])],
)
def test_scales(points, scales, expected):
    assert scale_numbers(points, scales) == expected


@pytest.mark.parametrize("scales", [[64, 64], [128, 64], [], [2, 64]])
def test_scales_that_do_not_rise(scales):
    with pytest.raises(DataError, match="scales must rise"):
        scale_numbers(512, scales)


@pytest.mark.parametrize(
    ("modes", "scales", "cases", "expected"),
    [
        (96, [64, 128, 256, 512], 160, [16, 24, 48, 96]),
        (8, [64, 128], 160, [8, 8]),
        (96, [64, 128, 256, 512], 31, [16, 24, 30, 30]),
        ([3, 5], [64, 128], 160, [3, 5]),
    ],
)
def test_modes(modes, scales, cases, expected):
    assert mode_numbers(modes, scales, cases) == expected


def test_modes_for_other_scales():
    with pytest.raises(DataError, match="modes must be one number"):
        mode_numbers([3, 5, 7], [64, 128], 160)


@pytest.mark.parametrize(("given", "expected"), [(2, [2, 2]), ([1, 1, 1, 2], [1, 2]), ([0, 3], [0, 3]), ([1], [1, 1])])
def test_refinements(given, expected):
    assert refinement_numbers(given, [64, 128]) == expected


def test_the_first_refinements_hold_for_the_scales_of_more_points():
    assert refinement_numbers([1, 1, 1, 2], scale_numbers(2048, None)) == [1, 1, 1, 1, 1, 2]


def test_no_refinements():
    with pytest.raises(DataError, match="refinements"):
        refinement_numbers([], [64, 128])


@pytest.mark.parametrize(
    ("numbers", "option"),
    [
        (lambda: scale_numbers(512, "half"), "--scales half"),
        (lambda: mode_numbers("many", [64], 9), "--modes many"),
        (lambda: refinement_numbers(["a"], [64]), "--refinements"),
    ],
)
def test_words_in_place_of_numbers(numbers, option):
    with pytest.raises(DataError, match=f"{option}.*: give whole numbers"):
        numbers()


def test_every_pass_has_each_case_once():
    sampler = CaseSampler(range(6), batch_size=4, epoch_length=3, seed=1)
    drawn = [case for batch in sampler for case in batch]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))
    assert drawn[:6] != drawn[6:]


def test_processes_share_a_batch():
    whole = CaseSampler(range(10), batch_size=4, epoch_length=5)
    halves = [CaseSampler(range(10), batch_size=2, epoch_length=5, rank=rank, world_size=2) for rank in (0, 1)]
    for step in range(5):
        assert whole.batch(step) == halves[0].batch(step) + halves[1].batch(step)


def test_no_case_to_sample():
    with pytest.raises(DataError, match="no training case"):
        CaseSampler([])


@pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (0.25, 70, 130), (1, 400, 400)])
def test_share_of_drawn_shapes(share, least, most):
    drawn = [case - 6 for batch in CaseSampler(range(6), batch_size=4, epoch_length=100, drawn=share) for case in batch if case >= 6]
    assert least <= len(drawn) <= most
    assert len(set(drawn)) == len(drawn)  # a new shape each time


@pytest.mark.parametrize("share", [-0.1, 1.5, "half", True])
def test_what_is_no_share(share):
    with pytest.raises(DataError, match="number from 0 to 1"):
        CaseSampler(range(6), drawn=share)


@pytest.mark.parametrize(("structure", "fault"), [(1, None), (2, "lie .* mm from the surface of label value 2; which --structure")])
def test_points_lie_on_their_structure(tmp_path, structure, fault):
    label = np.zeros((32, 32, 48), np.uint8)
    label[8:24, 8:24, 4:16], label[8:24, 8:24, 30:44] = 1, 2
    for name in ("image", "label"):
        write_nifti(tmp_path / f"{name}.nii.gz", label, np.diag([-1.0, -1.0, 1.0, 1.0]))  # so that voxels are LPS mm
    np.savetxt(tmp_path / "case.particles", label_surface(label, np.diag([-1.0, -1.0, 1.0, 1.0]), 1).vertices[::50])
    case = Case("case", tmp_path / "image.nii.gz", tmp_path / "label.nii.gz", particles=tmp_path / "case.particles")
    count = len(np.loadtxt(case.particles))
    if fault is None:
        check_shape_cases([case], count, structure)
    else:
        with pytest.raises(DataError, match=fault):
            check_shape_cases([case], count, structure)


def image_of(folder: Path, shape: tuple[int, int, int]) -> Case:
    """An image of voxels of ``PLAN``, whose axes are permuted and flipped."""
    affine = np.zeros((4, 4))
    affine[[0, 1, 2, 3], [2, 0, 1, 3]] = (-1.0, 2.0, 3.0, 1.0)
    write_nifti(folder / "image.nii.gz", np.zeros(np.array(shape)[[1, 2, 0]], np.float32), affine)
    return Case("case", folder / "image.nii.gz", None, particles=folder / "case.particles")


@pytest.mark.parametrize("shape", [(16, 32, 16), (21, 42, 21)])
def test_images_of_about_the_networks_field(tmp_path, caplog, shape):
    check_sizes([image_of(tmp_path, shape)], replace(PLAN, extra={"shape": {"field": [12, 24, 12]}}))
    assert ("1 image(s) are larger than the network's grid, 16 x 32 x 16" in caplog.text) == (shape != PLAN.size)


@pytest.mark.parametrize(
    ("shape", "fault"),
    [((16, 32, 11), "less than the network's field, 12"), ((16, 43, 16), "more than four thirds of the .*, 16 x 32 x 16")],
)
def test_images_of_another_field(tmp_path, shape, fault):
    with pytest.raises(DataError, match=rf"image.nii.gz: {shape[0]} x {shape[1]} x {shape[2]} voxels of 1 x 2 x 3 mm are {fault}"):
        check_sizes([image_of(tmp_path, shape)], replace(PLAN, extra={"shape": {"field": [12, 24, 12]}}))


def test_an_image_that_a_client_hands_over(tmp_path):
    plan = replace(PLAN, extra={"shape": {"field": [12, 24, 12]}})
    given = {"image": str(image_of(tmp_path, (16, 32, 16)).image)}
    assert image_transforms(plan)(given)["image"].shape == (1, *PLAN.size)


def test_an_image_of_another_field_that_a_client_hands_over(tmp_path):
    plan = replace(PLAN, extra={"shape": {"field": [12, 24, 12]}})
    given = {"image": str(image_of(tmp_path, (16, 43, 16)).image)}
    with pytest.raises(Exception, match="apply") as caught:
        image_transforms(plan)(given)
    assert "16 x 43 x 16 voxels of 1 x 2 x 3 mm are more than four thirds" in str(cause(caught.value))


def test_images_as_large_as_those_that_a_training_cropped(tmp_path):
    check_sizes([image_of(tmp_path, (16, 64, 16))], replace(PLAN, extra={"shape": {"field": [12, 24, 12], "largest": [16, 64, 16]}}))


@pytest.mark.parametrize(("second", "fits"), [(30.0, True), (34.0, False)])
def test_points_that_the_grid_crops(tmp_path, second, fits):
    """The grid reaches 32 mm to the front of the image's centre."""
    case = image_of(tmp_path, (16, 64, 16))
    centre = np.array([-7.5, 63.0, 22.5])  # RAS mm
    write_particles(case.particles, (centre + [0.0, second, 0.0]) * [-1.0, -1.0, 1.0] + np.zeros((20, 3)))
    if fits:
        check_on_grid([case], PLAN)
    else:
        with pytest.raises(DataError, match=r"case.particles: 100% of the points lie outside .* --size or --spacing"):
            check_on_grid([case], PLAN)


@pytest.fixture
def spheres() -> ShapeDataset:
    """Six bright spheres of radii 5 to 7.5 voxels, their points 1 voxel apart in mm."""

    def load(radius: float) -> dict:
        image = (torch.from_numpy(np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0)) < radius)[None]
        return {"image": image.float(), "label": image.long() * 2, "points": radius * directions}

    directions = torch.from_numpy(np.random.default_rng(0).standard_normal((80, 3))).float()
    directions /= directions.norm(dim=1, keepdim=True)
    shapes = partial(ShapeAugmentation, size=(24, 24, 24), spacing=(1.0, 1.0, 1.0), modes=1)
    return ShapeDataset([5.0, 5.5, 6.0, 6.5, 7.0, 7.5], load, shapes=shapes, classes=3, progress=False, num_workers=0)


def test_drawn_cases_come_after_those_of_the_data_set(spheres):
    assert len(spheres) == 6
    assert float(spheres[5]["points"].norm(dim=1).mean()) == pytest.approx(7.5, abs=1e-3)
    assert [spheres[6]["points"].norm(dim=1).mean() == spheres[n]["points"].norm(dim=1).mean() for n in (6, 7)] == [True, False]
    batch = collate_cases([spheres[0], spheres[9]])
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "image": (2, 1, 24, 24, 24),
        "label": (2, 1, 24, 24, 24),
        "points": (2, 80, 3),
    }


def test_image_and_label_of_a_drawn_case_follow_its_points(spheres):
    for number in range(6, 14):
        case = spheres[number]
        radius = float(case["points"].norm(dim=1).mean())
        assert case["label"].dtype == torch.long
        assert set(case["label"].unique().tolist()) == {0, 2}
        volume = 4 / 3 * np.pi * radius**3
        assert float((case["label"] == 2).sum()) == pytest.approx(volume, rel=0.15)  # whole voxels
        assert float(case["image"].sum()) == pytest.approx(volume, rel=0.15)  # whole voxels


def test_shapes_that_cannot_be_drawn_stop_a_training_before_it_begins(spheres):
    shapes = partial(ShapeAugmentation, size=(24, 24, 24), spacing=(1.0, 1.0, 1.0), modes=9)
    with pytest.raises(DataError, match="drawn shapes: modes must be"):
        ShapeDataset(spheres.data, spheres.transform, shapes=shapes, progress=False, num_workers=0)
