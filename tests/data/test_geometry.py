from __future__ import annotations

import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial.transform import Rotation

from tools.data.checks import DataError
from tools.data.decathlon import read_dataset
from tools.data.files import write_nifti
from tools.data.geometry import grid_mapping, load_volume, preprocessing, to_plan
from tools.data.plan import Plan, make_plan

PLAN = Plan(labels={0: "background", 1: "left", 2: "right"}, size=(48, 64, 48))
# axes permuted and flipped, then the patient turned by less than 45 degrees: the closest axes stay the same
PERMUTED = np.array([[0, 0, -1, 30], [1, 0, 0, -7], [0, -1, 0, 12], [0, 0, 0, 1.0]])
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [20, -15, 12], degrees=True).as_matrix()
OBLIQUE[:3, 3] = [100, -40, 3]


def dice(a, b, value=1):
    return 2 * np.sum((a == value) & (b == value)) / (np.sum(a == value) + np.sum(b == value))


def phantom(shape=(37, 52, 33)):
    """A smooth image with a two-part label map, RAS, 1 mm."""
    position = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).astype(float)
    centre = (np.array(shape) - 1) / 2 + [1.3, -2.1, 0.6]
    distance = np.sqrt((((position - centre[:, None, None, None]) / np.array([12, 17, 10])[:, None, None, None]) ** 2).sum(0))
    label = np.where(distance < 1, np.where(position[1] < centre[1], 1, 2), 0)
    image = gaussian_filter(np.array([100.0, 300.0, 200.0])[label], 1.2) + 20 * np.sin(position[0] / 4) * np.cos(position[2] / 5)
    return image.astype(np.float32), label.astype(np.uint8)


def restored(volume, order):
    """The phantom as another scanner stores it: axes permuted and flipped, voxels 0.8 x 1.25 x 0.6 mm, rotated in the world.

    Returns the volume, its affine, and the affine of the phantom's own voxels in the same (rotated) world.
    """
    spacing = np.array([0.8, 1.25, 0.6])
    rotation, offset = PERMUTED[:3, :3], PERMUTED[:3, 3]
    # PERMUTED takes stored axes to RAS axes; the stored grid covers the same box of the world
    extent = np.abs(rotation.T) @ np.array(volume.shape)
    shape = np.round(extent / spacing).astype(int)
    centre = (np.array(volume.shape) - 1) / 2
    scaled = rotation * spacing
    shift = centre - scaled @ ((shape - 1) / 2)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).reshape(3, -1)
    sampled = map_coordinates(volume.astype(float), scaled @ index + shift[:, None], order=order, mode="nearest").reshape(shape)
    affine, own = np.eye(4), np.eye(4)
    affine[:3, :3], affine[:3, 3] = scaled, shift + offset
    own[:3, 3] = offset
    return sampled.astype(volume.dtype), OBLIQUE @ affine, OBLIQUE @ own


def test_load_volume(tmp_path):
    write_nifti(tmp_path / "x.nii.gz", np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1), PERMUTED)
    array, affine = load_volume(tmp_path / "x.nii.gz")
    assert array.shape == (2, 3, 4)
    assert array.dtype == np.int16
    assert np.allclose(affine, PERMUTED)
    with pytest.raises(DataError, match="missing"):
        load_volume(tmp_path / "y.nii.gz")


def test_same_spacing_is_only_padded_and_scaled():
    image, label = phantom()
    tensor, mapping = to_plan(image, np.eye(4), PLAN)
    low, high = np.percentile(image, [0.5, 99.5])
    inside = tensor[0, 5:42, 6:58, 7:40].numpy()
    assert tensor.shape == (1, 48, 64, 48)
    assert tensor.dtype == torch.float32
    assert np.allclose(inside, ((image - low) / (high - low)).clip(0, 1), atol=1e-5)
    assert tensor[0, :5].abs().max() == 0
    assert np.allclose(mapping.affine[:3, 3], [-5, -6, -7])
    tensor, _ = to_plan(label, np.eye(4), PLAN, is_label=True)
    assert np.array_equal(tensor[0, 5:42, 6:58, 7:40].numpy(), label)


@pytest.mark.parametrize("world", [np.eye(4), OBLIQUE])
def test_permuted_flipped_rotated_header_gives_identical_input(world):
    image, label = phantom()
    expected, _ = to_plan(image, np.eye(4), PLAN)
    # stored[i] = image[PERMUTED-like index]: RAS axes (x, y, z) are stored as (y, -z, -x)
    stored = image.transpose(1, 2, 0)[:, ::-1, ::-1]
    tensor, mapping = to_plan(stored.copy(), world @ PERMUTED, PLAN)
    # an odd margin puts the spare voxel on the other side of a flipped axis; nothing else may differ
    shifts = [(i, j, k) for i in (0, 1, -1) for j in (0, 1, -1) for k in (0, 1, -1)]
    assert any(torch.allclose(tensor.roll(s, (1, 2, 3)), expected, atol=1e-5) for s in shifts)
    stored_label = label.transpose(1, 2, 0)[:, ::-1, ::-1].copy()
    tensor, mapping = to_plan(stored_label, world @ PERMUTED, PLAN, is_label=True)
    assert np.array_equal(mapping.to_native(tensor)[0].numpy(), stored_label)


def test_other_geometry_gives_nearly_the_same_input():
    image, label = phantom()
    expected, _ = to_plan(image, np.eye(4), PLAN)
    expected_label, _ = to_plan(label, np.eye(4), PLAN, is_label=True)
    stored, affine, own = restored(image, order=3)
    tensor, mapping = to_plan(stored, affine, PLAN)
    stored_label, _, _ = restored(label, order=0)
    tensor_label, _ = to_plan(stored_label, affine, PLAN, is_label=True)
    # Compared where the phantom's voxels really lie, for grids may differ by a part of a voxel.
    own_grid = np.linalg.inv(own) @ mapping.affine
    index = np.stack(np.meshgrid(*(np.arange(4, n - 4) for n in PLAN.size), indexing="ij")).reshape(3, -1)
    position = own_grid[:3, :3] @ index + own_grid[:3, 3:] + np.array([[5], [6], [7]])
    assert np.allclose(own_grid[:3, :3], np.eye(3), atol=1e-6)
    assert np.abs(own_grid[:3, 3] + [5, 6, 7]).max() <= 1
    reference = map_coordinates(expected[0].numpy(), position, order=1, mode="nearest")
    got = tensor[0].numpy()[tuple(index)]
    margin = (np.abs(position - np.array([[23.0], [31.5], [23.0]])) < np.array([[17], [24], [15]])).all(0)
    assert np.abs(got - reference)[margin].max() < 0.05
    assert np.abs(got - reference)[margin].mean() < 0.005
    reference = map_coordinates(expected_label[0].numpy(), position, order=0)
    assert min(dice(tensor_label[0].numpy()[tuple(index)], reference, value) for value in (1, 2)) > 0.93


@pytest.mark.parametrize("factor", [(1, 1, 1), (0.7, 1.4, 1.0), (0.5, 0.5, 0.5)])
def test_label_to_the_plan_and_back(factor):
    _, label = phantom()
    plan = Plan(labels=PLAN.labels, spacing=tuple(0.9 * f for f in factor), size=(96, 128, 80))
    stored, affine, _ = restored(label, order=0)
    tensor, mapping = to_plan(stored, affine, plan, is_label=True)
    probabilities = torch.nn.functional.one_hot(tensor[0].long(), 3).movedim(-1, 0).float()
    back = mapping.to_native(probabilities, "segmentation").numpy()
    assert back.shape == stored.shape
    assert back.dtype == np.int64
    assert min(dice(back, stored, value) for value in (1, 2)) > 0.97


def test_physical_points_stay_put():
    """A bright voxel is found at the same millimetres in the network's grid."""
    volume = np.zeros((20, 24, 10), np.float32)
    volume[4:7, 10:13, 3:5] = 1
    affine = OBLIQUE @ PERMUTED @ np.diag([1.5, 1, 3, 1])
    tensor, mapping = to_plan(
        volume,
        affine,
        Plan(labels=PLAN.labels, spacing=(1.5, 1, 1), size=(48, 48, 48), intensity={"lower_percentile": 0, "upper_percentile": 100}),
    )

    def centre_of_mass(array, to_world):
        index = np.stack(np.meshgrid(*(np.arange(n) for n in array.shape), indexing="ij")).reshape(3, -1)
        return to_world[:3, :3] @ (index * array.ravel()).sum(1) / array.sum() + to_world[:3, 3]

    assert np.allclose(centre_of_mass(tensor[0].numpy(), mapping.affine), centre_of_mass(volume, affine), atol=0.1)


def test_linear_back_is_the_image():
    image, _ = phantom()
    tensor, mapping = to_plan(image, OBLIQUE, PLAN)
    back = mapping.to_native(tensor, "linear")[0].numpy()
    assert np.corrcoef(back.ravel(), image.ravel())[0, 1] > 0.999


def test_cropped_volume_gets_background_outside():
    label = np.ones((40, 20, 20), np.uint8)
    tensor, mapping = to_plan(label, np.eye(4), Plan(labels=PLAN.labels, size=(16, 32, 32)), is_label=True)
    back = mapping.to_native(tensor)[0].numpy()
    assert back.shape == label.shape
    assert back[12:28].all()
    assert not back[:12].any()
    assert not back[28:].any()
    assert mapping.to_native(tensor, padding="border")[0].all()


def test_segmentation_returns_the_data_sets_values():
    plan = Plan(labels={0: "b", 3: "x", 8: "y"}, size=(16, 16, 16))
    label = np.zeros((10, 10, 10), np.int16)
    label[2:5], label[5:7] = 3, 8
    tensor, mapping = to_plan(label, np.eye(4), plan, is_label=True)
    probabilities = torch.nn.functional.one_hot(plan.to_channels(tensor[0]), 3).movedim(-1, 0).float()
    assert np.array_equal(mapping.to_native(probabilities, "segmentation").numpy(), label)


@pytest.mark.parametrize(
    ("shape", "mode", "message"),
    [((3, 48, 64, 48), "cubic", "mode"), ((48, 64, 40), "nearest", "expected"), ((2, 48, 64, 48), "segmentation", "3 classes")],
)
def test_to_native_invalid(shape, mode, message):
    _, mapping = to_plan(phantom()[0], np.eye(4), PLAN)
    with pytest.raises(ValueError, match=message):
        mapping.to_native(torch.zeros(shape), mode)


def files(tmp_path):
    image, label = phantom()
    stored, affine, _ = restored(image, order=1)
    stored_label, _, _ = restored(label, order=0)
    write_nifti(tmp_path / "i.nii.gz", stored[..., None], affine)
    write_nifti(tmp_path / "l.nii.gz", stored_label, affine)
    return {"image": str(tmp_path / "i.nii.gz"), "label": str(tmp_path / "l.nii.gz")}


def test_preprocessing_of_files_equals_to_plan(tmp_path):
    case = files(tmp_path)
    result = preprocessing(PLAN)(case)
    for key in case:
        volume, affine = load_volume(case[key])
        tensor, mapping = to_plan(volume, affine, PLAN, is_label=key == "label")
        assert torch.allclose(result[key].as_tensor(), tensor)
        from_meta = grid_mapping(result[key], PLAN)
        assert from_meta.native_shape == mapping.native_shape
        assert np.allclose(from_meta.native_affine, mapping.native_affine)
        assert np.allclose(from_meta.affine, mapping.affine)


def test_preprocessing_passes_over_missing_label(tmp_path):
    case = files(tmp_path)
    assert set(preprocessing(PLAN)({"image": case["image"]})) == {"image"}


def test_monai_invertd_brings_the_prediction_back(tmp_path):
    """The way MONAI Label takes: Invertd on the same Compose, nearest neighbour."""
    case = files(tmp_path)
    transforms = preprocessing(PLAN, keys=("image",))
    data = transforms({"image": case["image"]})
    stored, affine = load_volume(case["label"])
    # what a network makes of a MetaTensor is one again
    data["pred"] = MetaTensor(to_plan(stored, affine, PLAN, is_label=True)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = Compose([Invertd("pred", transform=transforms, orig_keys="image", nearest_interp=True, to_tensor=True)])(data)["pred"]
    assert tuple(back.shape) == (1, *stored.shape)
    assert np.allclose(back.affine, affine)
    assert min(dice(back[0].numpy(), stored, value) for value in (1, 2)) > 0.93


def test_real_cases_come_back_exactly(shared_data):
    dataset = read_dataset(shared_data / "hippocampus")
    plan = Plan(labels=dataset.labels, size=(48, 64, 48))
    for case in dataset.cases[:5]:
        label, affine = load_volume(case.label)
        tensor, mapping = to_plan(label, affine, plan, is_label=True)
        assert np.array_equal(mapping.to_native(tensor)[0].numpy(), label)
        assert np.array_equal(nib.load(case.image).affine, mapping.native_affine)


def test_plan_holds_every_tiny_case(tiny_dataset):
    dataset = read_dataset(tiny_dataset)
    plan = make_plan(dataset)
    for case in dataset.cases:
        label, affine = load_volume(case.label)
        tensor, _ = to_plan(label, affine, plan, is_label=True)
        assert int((tensor > 0).sum()) == int((label > 0).sum())
