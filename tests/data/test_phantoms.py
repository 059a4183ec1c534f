from __future__ import annotations

from functools import lru_cache

import nibabel as nib
import numpy as np
import pytest
import pyvista as pv
import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.networks.utils import one_hot
from monai.transforms import ScaleIntensityRangePercentiles
from skimage.measure import marching_cubes

from tools.bundle.steps import seeded_generator
from tools.data.augmentation import Augmentation
from tools.data.phantoms import JOINTS, Phantom, make_phantom, template_points, true_deformation, write_phantoms
from tools.registration.displacement import compose, identity_grid, jacobian_determinant, warp

SUBJECTS = 4


@lru_cache
def subjects(joint: str) -> list[Phantom]:
    return [make_phantom(joint, seed=5, case_index=index) for index in range(SUBJECTS)]


def pairs(joint: str) -> list[tuple[Phantom, Phantom]]:
    made = subjects(joint)
    return list(zip(made, made[1:] + made[:1]))


def dice(first: np.ndarray, second: np.ndarray, labels: int) -> float:
    """Mean over the label values 1 .. labels."""
    both = [((first == k) & (second == k)).sum() / ((first == k).sum() + (second == k).sum()) for k in range(1, labels + 1)]
    return 2 * float(np.mean(both))


def warp_labels(label: np.ndarray, ddf: torch.Tensor, labels: int) -> np.ndarray:
    """Each label's mask interpolated linearly, the largest wins."""
    masks = torch.stack([torch.as_tensor(label == k, dtype=torch.float32) for k in range(labels + 1)])[None]
    return warp(masks, ddf)[0].argmax(0).numpy()


def looks_inside(ddf: torch.Tensor) -> np.ndarray:
    """Voxels that look at a place inside the moving image; elsewhere there is nothing to warp.

    Shafts are cut by the field of view, as in images of patients, and every subject's pose brings another part of them into it. A larger
    field of view would only cut them farther out.
    """
    position = (identity_grid(ddf) + ddf)[0]
    return np.all([((p >= 0) & (p <= n - 1)).numpy() for p, n in zip(position, position.shape[1:])], axis=0)


@pytest.mark.parametrize("joint", JOINTS)
def test_true_deformation_aligns_labels(joint):
    """Where the fixed image shows a part of a shaft that the moving one does not, no deformation can bring its label, and its border is
    repeated: that is the difference between the last two bounds."""
    before, everywhere, inside = [], [], []
    for fixed, moving in pairs(joint):
        labels = len(fixed.label_names) - 1
        ddf = true_deformation(fixed, moving)
        assert ddf.shape == (1, 3, *fixed.label.shape)
        warped, mask = warp_labels(moving.label, ddf, labels), looks_inside(ddf)
        before.append(dice(fixed.label, moving.label, labels))
        everywhere.append(dice(fixed.label, warped, labels))
        inside.append(dice(fixed.label * mask, warped * mask, labels))
    assert 0.40 < np.mean(before) < 0.75
    assert np.mean(inside) > 0.97
    assert np.mean(everywhere) > 0.96


def test_nearest_neighbour_aligns_labels_on_a_fine_grid():
    fixed, moving = (make_phantom("knee", 5, index, size=(84, 112, 84)) for index in range(2))
    ddf = true_deformation(fixed, moving)
    warped = warp(torch.as_tensor(moving.label)[None, None].float(), ddf, mode="nearest")[0, 0].numpy()
    mask = looks_inside(ddf)
    assert dice(fixed.label * mask, warped * mask, 3) > 0.97


@pytest.mark.parametrize("joint", JOINTS)
def test_true_deformation_is_smooth_and_invertible(joint):
    fixed, moving = subjects(joint)[:2]
    forward, backward = true_deformation(fixed, moving), true_deformation(moving, fixed)
    assert jacobian_determinant(forward).min() > 0
    both = compose(forward, backward).norm(dim=1)[0].numpy()
    inner = looks_inside(backward)
    assert np.quantile(both[inner], 0.99) < 0.2  # voxels; what is left is the interpolation of the fields
    assert true_deformation(fixed, fixed).abs().max() < 0.05


@pytest.mark.parametrize("joint", JOINTS)
def test_map_and_inverse_agree(joint):
    subject_map = subjects(joint)[0].subject_map
    points = template_points(JOINTS[joint], 512)[0]
    assert np.abs(subject_map.to_template(subject_map.to_subject(points)) - points).max() < 0.05  # mm


@pytest.mark.parametrize("joint", JOINTS)
def test_points_lie_on_the_surface_of_their_label(joint):
    for phantom in subjects(joint)[:2]:
        assert phantom.points.shape == (512, 3)
        spacing = np.diag(phantom.affine)[:3]
        voxel = (phantom.points - phantom.affine[:3, 3]) / spacing
        assert (voxel > 0).all()
        assert (voxel < np.array(phantom.label.shape) - 1).all()
        for value in range(1, len(phantom.label_names)):
            vertices, faces = marching_cubes((phantom.label == value).astype(np.float32), 0.5)[:2]
            surface = pv.PolyData(vertices, np.insert(faces, 0, 3, axis=1).ravel())
            on_bone = pv.PolyData(voxel[phantom.point_labels == value].astype(np.float32))
            distance = on_bone.compute_implicit_distance(surface)["implicit_distance"]
            assert np.abs(distance).max() < 0.5
            assert abs(distance.mean()) < 0.1  # neither inside nor outside on the whole


@pytest.mark.parametrize("joint", JOINTS)
def test_points_are_exact_and_correspond(joint):
    template, labels = template_points(JOINTS[joint], 512)
    distance = np.stack(JOINTS[joint].shapes(np.ascontiguousarray(template.T)))[labels - 1, np.arange(512)]
    assert np.abs(distance).max() < 0.05  # mm
    fixed, moving = subjects(joint)[:2]
    ddf = true_deformation(fixed, moving)
    at = (fixed.points - fixed.affine[:3, 3]) / np.diag(fixed.affine)[:3]
    grid = torch.as_tensor(at, dtype=torch.float32).T.reshape(1, 3, -1, 1, 1)
    shape = torch.tensor(fixed.label.shape).view(1, 3, 1, 1, 1)
    normalised = (2 * grid / (shape - 1) - 1).permute(0, 2, 3, 4, 1).flip(-1)
    carried = at + torch.nn.functional.grid_sample(ddf, normalised, align_corners=True)[0, :, :, 0, 0].T.numpy()
    expected = (moving.points - moving.affine[:3, 3]) / np.diag(moving.affine)[:3]
    assert np.abs(carried - expected).max() < 0.5


def test_points_on_one_bone():
    phantom = make_phantom("ankle", size=(16, 20, 16), points=64, bone="talus")
    assert phantom.points.shape == (64, 3)
    assert set(phantom.point_labels.tolist()) == {3}


def test_a_bone_that_the_joint_has_not():
    with pytest.raises(ValueError, match="the knee has no bone 'talus': choose from"):
        make_phantom("knee", size=(16, 20, 16), points=8, bone="talus")


def test_more_points_than_the_bone_has():
    with pytest.raises(ValueError, match=r"points: the patella has 1383 to choose from, not 3000"):
        make_phantom("knee", size=(16, 20, 16), points=3000, bone="patella")


def best_threshold_dice(image: np.ndarray, foreground: np.ndarray, steps: int = 200) -> float:
    """Best Dice any interval of intensities reaches when its two ends are chosen by looking at the truth."""
    edges = np.quantile(image, np.linspace(0, 1, steps))
    below_all = np.searchsorted(np.sort(image.ravel()), edges, side="right")
    below_hit = np.searchsorted(np.sort(image[foreground]), edges, side="right")
    below_all, below_hit = np.append(0, below_all), np.append(0, below_hit)
    hits, chosen = below_hit[None] - below_hit[:, None], below_all[None] - below_all[:, None]
    return float(np.triu(2 * hits / (np.maximum(chosen, 0) + foreground.sum())).max())


@pytest.mark.parametrize("joint", JOINTS)
def test_thresholding_does_not_solve_it(joint):
    for phantom in subjects(joint):
        assert best_threshold_dice(phantom.image, phantom.label > 0) < 0.6


def images_and_labels(phantoms: list[Phantom]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 1, D, H, W) in [0, 1] and one-hot labels (N, C, D, H, W)."""
    scale = ScaleIntensityRangePercentiles(0.5, 99.5, 0, 1, clip=True)
    images = torch.stack([scale(torch.as_tensor(phantom.image[None], dtype=torch.float32)) for phantom in phantoms])
    labels = torch.stack([torch.as_tensor(phantom.label[None]) for phantom in phantoms])
    return images, one_hot(labels, len(phantoms[0].label_names))


def learnt(phantoms: list[Phantom], steps: int) -> UNet:
    """MONAI's plain U-Net after so many steps of one image each, under the deformations and intensities that the bundles learn by."""
    images, labels = images_and_labels(phantoms)
    augmentation = Augmentation(spacing=np.diag(phantoms[0].affine)[:3].tolist())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(3, 1, labels.shape[1], channels=(16, 32, 64, 128), strides=(2, 2, 2))
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, steps, pct_start=0.1)
    loss = DiceCELoss(include_background=False, softmax=True)
    for step in range(steps):
        generator, case = seeded_generator(0, step), [step % len(phantoms)]
        image, label = augmentation.deform(images[case], labels[case], generator)
        optimizer.zero_grad()
        loss(network(augmentation.intensities(image, generator)), label).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def mean_dice(network: UNet, phantoms: list[Phantom]) -> float:
    answers = [network(image[None]).argmax(1)[0].numpy() for image in images_and_labels(phantoms)[0]]
    return float(np.mean([dice(phantom.label, answer, len(phantom.label_names) - 1) for phantom, answer in zip(phantoms, answers)]))


@pytest.mark.slow
@pytest.mark.parametrize("joint", JOINTS)
def test_a_unet_of_four_cases_does_not_solve_it(joint):
    """400 steps, after which it knows the four it has learnt from."""
    network = learnt(subjects(joint), steps=400)
    assert mean_dice(network, subjects(joint)) > 0.9
    assert mean_dice(network, [make_phantom(joint, seed=5, case_index=index) for index in range(SUBJECTS, 2 * SUBJECTS)]) < 0.93


@pytest.mark.parametrize("joint", JOINTS)
def test_every_bone_is_there(joint):
    for phantom in subjects(joint):
        assert tuple(phantom.label_names.values())[1:] == JOINTS[joint].bones
        assert np.bincount(phantom.label.ravel(), minlength=len(phantom.label_names)).min() > 1000
        assert phantom.image.dtype == np.int16
        assert phantom.image.std() > 0


def test_same_seed_same_files(tmp_path):
    for name in ("a", "b"):
        write_phantoms(tmp_path / name, "knee", cases=2, seed=7, size=(16, 20, 16), points=32)
    first = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(first) == 7
    for path in first:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_seeds_and_cases_differ():
    made = [make_phantom("knee", seed, case, size=(16, 20, 16), points=8) for seed, case in ((0, 0), (1, 0), (0, 1))]
    for other in made[1:]:
        assert not np.array_equal(made[0].label, other.label)
        assert not np.allclose(made[0].points, other.points, atol=0.1)


def test_the_subject_does_not_depend_on_the_grid():
    coarse, fine = make_phantom("ankle", 1, 2, size=(16, 20, 16)), make_phantom("ankle", 1, 2, size=(24, 32, 24))
    np.testing.assert_array_equal(coarse.points, fine.points)


def test_size_and_spacing_set_the_grid():
    phantom = make_phantom("knee", size=(16, 20, 24), spacing=(3, 4, 5), points=8)
    assert phantom.image.shape == phantom.label.shape == (16, 20, 24)
    np.testing.assert_allclose(phantom.affine, [[3, 0, 0, -22.5], [0, 4, 0, -38], [0, 0, 5, -57.5], [0, 0, 0, 1]])


def test_particles_are_lps_in_the_image_space(tmp_path):
    write_phantoms(tmp_path / "set", "ankle", cases=1, size=(24, 32, 24), points=40)
    lps = np.loadtxt(tmp_path / "set" / "particles" / "ankle_000.particles")
    phantom = make_phantom("ankle", 0, 0, size=(24, 32, 24), points=40)
    np.testing.assert_allclose(lps * [-1, -1, 1], phantom.points, atol=1e-4)
    image = nib.load(tmp_path / "set" / "imagesTr" / "ankle_000.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj), phantom.image)
    np.testing.assert_allclose(image.affine, phantom.affine, atol=1e-5)


def test_deformation_between_different_joints_is_refused():
    knee, ankle = (make_phantom(joint, size=(8, 8, 8), points=1) for joint in ("knee", "ankle"))
    with pytest.raises(ValueError, match="one joint: knee and ankle"):
        true_deformation(knee, ankle)
