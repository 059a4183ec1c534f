from __future__ import annotations

import itk
import nibabel as nib
import numpy as np
import pytest
import torch

from tools.data.checks import DataError
from tools.registration.displacement import warp
from tools.registration.fields import invert_field, invert_points, resample_field, transform_points
from tools.registration.itk_field import physical_displacement, read_itk_field, resample, write_itk_field


def rotation(x: float, y: float, z: float) -> np.ndarray:
    (cx, sx), (cy, sy), (cz, sz) = ((np.cos(np.deg2rad(a)), np.sin(np.deg2rad(a))) for a in (x, y, z))
    return (
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )


def affine(spacing: tuple[float, float, float], angles=(0.0, 0.0, 0.0), origin=(0.0, 0.0, 0.0), flip=(1, 1, 1)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(*angles) @ np.diag(np.array(spacing) * np.array(flip))
    matrix[:3, 3] = origin
    return matrix


def smooth(shape: tuple[int, ...], seed: int, channels: int = 1) -> torch.Tensor:
    coarse = torch.randn((1, channels, 4, 4, 4), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, shape, mode="trilinear", align_corners=True)


FIXED = affine((0.9, 1.3, 2.5), (12, -20, 31), (40, -30, 17), (-1, 1, 1))
MOVING = affine((1.1, 0.8, 2.0), (-15, 8, 10), (-25, 60, 5), (1, -1, 1))
FIXED_SHAPE, MOVING_SHAPE = (22, 18, 11), (20, 26, 14)


def network_affine(native: np.ndarray, shape: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    """Grid of 1.5 mm along the image's own axes about its centre."""
    matrix = native.copy()
    matrix[:3, :3] = native[:3, :3] / np.linalg.norm(native[:3, :3], axis=0) * 1.5
    centre = native[:3, :3] @ ((np.array(shape) - 1) / 2) + native[:3, 3]
    matrix[:3, 3] = centre - matrix[:3, :3] @ ((np.array(size) - 1) / 2)
    return matrix


@pytest.fixture(scope="module")
def field() -> np.ndarray:
    size = (16, 16, 16)
    ddf = 0.7 * smooth(size, 1, 3)
    return physical_displacement(
        ddf, network_affine(FIXED, FIXED_SHAPE, size), network_affine(MOVING, MOVING_SHAPE, size), FIXED_SHAPE, FIXED
    )


@pytest.fixture(scope="module")
def moving() -> np.ndarray:
    return 100 + 30 * smooth(MOVING_SHAPE, 2)[0, 0].numpy()


def as_itk(volume: np.ndarray, matrix: np.ndarray, path) -> itk.Image:
    nib.save(nib.Nifti1Image(volume, matrix), path)
    return itk.imread(str(path))


@pytest.fixture
def itk_transform(tmp_path, field):
    """The written file as ITK's own transform, whose Python wrapping wants doubles where its reader gives floats."""
    write_itk_field(tmp_path / "ddf.nii.gz", field, FIXED)
    vectors = itk.imread(str(tmp_path / "ddf.nii.gz"))
    memory = itk.array_from_image(vectors).astype(np.float64)
    doubles = itk.image_view_from_array(memory, ttype=itk.Image[itk.Vector[itk.D, 3], 3])
    doubles.CopyInformation(vectors)
    transform = itk.DisplacementFieldTransform[itk.D, 3].New()
    transform.SetDisplacementField(doubles)
    yield transform  # while ``memory`` lives: ITK only borrows it
    del memory


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def test_a_shift_in_voxels_becomes_millimetres_in_lps():
    ddf = torch.zeros(1, 3, 4, 4, 4)
    ddf[:, 0], ddf[:, 2] = 2, -1
    matrix = np.diag([2.0, 3.0, 5.0, 1.0])
    displacement = physical_displacement(ddf, matrix, matrix, (3, 2, 5), np.eye(4))
    assert displacement.shape == (3, 2, 5, 3)
    np.testing.assert_allclose(displacement, np.broadcast_to([-4.0, 0.0, -5.0], (3, 2, 5, 3)), atol=1e-6)


def test_grids_of_different_position_add_their_distance():
    moving = np.eye(4)
    moving[:3, 3] = [10, 20, 30]
    displacement = physical_displacement(torch.zeros(3, 4, 4, 4), np.eye(4), moving, (2, 2, 2), np.eye(4))
    np.testing.assert_allclose(displacement[0, 0, 0], [-10, -20, 30], atol=1e-6)


def test_outside_the_network_grid_the_border_value_goes_on():
    ddf = torch.zeros(3, 2, 2, 2)
    ddf[0, 1] = 1.0
    displacement = physical_displacement(ddf, np.eye(4), np.eye(4), (6, 1, 1), affine((1, 1, 1), origin=(-2, 0, 0)))
    np.testing.assert_allclose(displacement[:, 0, 0, 0], [0, 0, 0, -1, -1, -1], atol=1e-6)


def test_on_the_network_grid_the_native_warp_is_the_network_warp():
    image, ddf = smooth((12, 12, 12), 3), 0.5 * smooth((12, 12, 12), 4, 3)
    displacement = physical_displacement(ddf, FIXED, MOVING, (12, 12, 12), FIXED)
    native = resample(image[0, 0].numpy(), MOVING, displacement, FIXED)
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(native[inner], warp(image, ddf)[0, 0].numpy()[inner], atol=1e-4)


def test_written_field_comes_back(tmp_path, field):
    write_itk_field(tmp_path / "a_ddf.nii.gz", field, FIXED)
    displacement, matrix = read_itk_field(tmp_path / "a_ddf.nii.gz")
    np.testing.assert_array_equal(displacement, field)
    np.testing.assert_allclose(matrix, FIXED, atol=1e-4)
    header = nib.load(tmp_path / "a_ddf.nii.gz").header
    assert header["intent_code"] == 1007
    assert header.get_data_shape() == (*FIXED_SHAPE, 1, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["a_ddf.nii.gz"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_warp_image_filter_gives_the_same_image(tmp_path, field, moving, suffix):
    write_itk_field(tmp_path / f"ddf{suffix}", field, FIXED)
    image = as_itk(moving.astype(np.float32), MOVING, tmp_path / "moving.nii.gz")
    vectors = itk.imread(str(tmp_path / f"ddf{suffix}"))
    warper = itk.WarpImageFilter[type(image), type(image), type(vectors)].New(image)
    warper.SetDisplacementField(vectors)
    warper.SetOutputParametersFromImage(vectors)
    warper.Update()
    theirs = itk.array_from_image(warper.GetOutput()).transpose(2, 1, 0)
    ours = resample(moving, MOVING, field, FIXED)
    assert (theirs == 0).any()
    assert (theirs != 0).mean() > 0.5
    assert relative_difference(ours, theirs) < 0.01


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_resample_filter_with_the_transform_gives_the_same_image(tmp_path, itk_transform, field, moving, mode):
    image = as_itk(np.round(moving / 20).astype(np.float32), MOVING, tmp_path / "moving.nii.gz")
    interpolators = {"linear": itk.LinearInterpolateImageFunction, "nearest": itk.NearestNeighborInterpolateImageFunction}
    output = itk.resample_image_filter(
        image,
        transform=itk_transform,
        interpolator=interpolators[mode].New(image),
        use_reference_image=True,
        reference_image=as_itk(np.zeros(FIXED_SHAPE, np.float32), FIXED, tmp_path / "fixed.nii.gz"),
    )
    theirs = itk.array_from_image(output).transpose(2, 1, 0)
    ours = resample(np.round(moving / 20).astype(np.int16), MOVING, field, FIXED, mode)
    if mode == "linear":
        assert relative_difference(ours, theirs) < 0.01
    else:
        assert ours.dtype == np.int16
        assert (ours == theirs).mean() > 0.999


def test_halfway_between_voxels_the_nearest_is_that_of_itk(tmp_path):
    fine, coarse = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    labels = np.random.default_rng(0).integers(0, 9, (5, 6, 7)).astype(np.int16)
    image = as_itk(labels, coarse, tmp_path / "labels.nii.gz")
    shape = (9, 11, 13)  # whose odd voxels lie halfway
    output = itk.resample_image_filter(
        image,
        interpolator=itk.NearestNeighborInterpolateImageFunction.New(image),
        use_reference_image=True,
        reference_image=as_itk(np.zeros(shape, np.float32), fine, tmp_path / "fine.nii.gz"),
    )
    ours = resample(labels, coarse, np.zeros((*shape, 3), np.float32), fine, "nearest")
    np.testing.assert_array_equal(ours, itk.array_from_image(output).transpose(2, 1, 0))


def test_points_go_where_itk_sends_them(itk_transform, field):
    voxels = np.random.default_rng(0).uniform(1, np.array(FIXED_SHAPE) - 2, (50, 3))
    points = (voxels @ FIXED[:3, :3].T + FIXED[:3, 3]) * [-1, -1, 1]
    theirs = np.array([itk_transform.TransformPoint(point.tolist()) for point in points])
    np.testing.assert_allclose(transform_points(points, field, FIXED), theirs, atol=1e-3)


def test_inverse_points_return(field):
    voxels = np.random.default_rng(0).uniform(0, np.array(FIXED_SHAPE) - 1, (200, 3))
    points = (voxels @ FIXED[:3, :3].T + FIXED[:3, 3]) * [-1, -1, 1]
    moved = transform_points(points, field, FIXED)
    assert np.linalg.norm(moved - points, axis=1).min() > 10
    back, error = invert_points(moved, field, FIXED)
    assert error.max() < 1e-3
    np.testing.assert_allclose(back, points, atol=1e-2)


def test_points_far_outside_the_grid_return(field):
    points = np.array([[300.0, -200.0, 100.0], [-500.0, 10.0, 0.0]])
    back, _ = invert_points(transform_points(points, field, FIXED), field, FIXED)
    np.testing.assert_allclose(back, points, atol=1e-2)


@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 1, 7)])
def test_the_affine_part_of_a_field_goes_on_outside(shape):
    """x + d(x) = 1.1 x + 0.2 y + 3; the field, whose memory is channel first, is left as it was."""
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"))
    displacement = np.stack([0.1 * grid[0] + 0.2 * grid[1] + 3, 0 * grid[0], 0 * grid[0]])
    before, point = displacement.copy(), np.array([[40.0, 0.0 if shape[1] == 1 else -9.0, 2.0]])
    moved = transform_points(point, np.moveaxis(displacement, 0, -1), np.diag([-1.0, -1.0, 1.0, 1.0]))
    np.testing.assert_allclose(moved, point + [[0.1 * 40 + 0.2 * point[0, 1] + 3, 0, 0]])
    np.testing.assert_array_equal(displacement, before)


def test_a_fold_leaves_an_error_and_finite_points():
    displacement = np.zeros((8, 8, 8, 3), np.float32)
    displacement[..., 0] = -2.5 * np.abs(np.arange(8) - 3.5)[:, None, None]
    points, error = invert_points(np.array([[40.0, 3.0, 3.0], [3.0, 3.0, 3.0]]), displacement, np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert np.isfinite(points).all()
    assert np.isfinite(error).all()


def test_inverse_field_undoes_the_field(field, moving):
    inverse, lost = invert_field(field, FIXED, MOVING_SHAPE, MOVING)
    assert lost == 0
    there_and_back = resample(resample(moving, MOVING, field, FIXED), FIXED, inverse, MOVING)
    seen = there_and_back > 60
    assert seen.mean() > 0.3
    assert np.median(np.abs(there_and_back - moving)[seen]) < 3


def test_inverse_of_a_field_over_one_slice():
    displacement = np.full((5, 5, 1, 3), 2.0, np.float32)
    np.testing.assert_allclose(invert_field(displacement, np.eye(4), (3, 3, 3), np.eye(4))[0], -2, atol=1e-2)


def test_field_on_another_grid_is_the_same_map(field):
    target = affine((2.0, 2.0, 2.0), (5, 5, 5), (35, -25, 20))
    finer = resample_field(field, FIXED, (4, 5, 6), target)
    world = (target @ [1, 2, 3, 1])[:3] * [-1, -1, 1]
    np.testing.assert_allclose(finer[1, 2, 3] + world, transform_points(world[None], field, FIXED)[0], atol=1e-3)


def test_sheared_grid_is_refused(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.4
    with pytest.raises(DataError, match=r"x\.nii\.gz.*sheared"):
        write_itk_field(tmp_path / "x.nii.gz", np.zeros((2, 2, 2, 3)), sheared)
    assert list(tmp_path.iterdir()) == []


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="missing"):
        read_itk_field(tmp_path / "none.nii.gz")


def test_scalar_image_is_no_field(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), np.float32), np.eye(4)), tmp_path / "scalar.nii.gz")
    with pytest.raises(DataError, match=r"scalar\.nii\.gz: not a displacement field"):
        read_itk_field(tmp_path / "scalar.nii.gz")


def test_text_is_no_field(tmp_path):
    (tmp_path / "text.nii.gz").write_text("hello")
    with pytest.raises(DataError, match=r"text\.nii\.gz"):
        read_itk_field(tmp_path / "text.nii.gz")


def test_truncated_field(tmp_path, field):
    write_itk_field(tmp_path / "a.nii.gz", field, FIXED)
    content = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"b\.nii\.gz"):
        read_itk_field(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_field_that_is_not_finite_is_not_written(tmp_path, value):
    with pytest.raises(DataError, match=r"a\.nii\.gz.*not finite"):
        write_itk_field(tmp_path / "a.nii.gz", np.full((2, 2, 2, 3), value), np.eye(4))


def test_a_field_that_is_not_finite_is_not_read(tmp_path):
    image = itk.image_from_array(np.full((2, 2, 2, 3), np.nan, np.float32), ttype=itk.Image[itk.Vector[itk.F, 3], 3])
    itk.imwrite(image, str(tmp_path / "a.mha"))
    with pytest.raises(DataError, match=r"a\.mha.*not finite"):
        read_itk_field(tmp_path / "a.mha")


def test_a_batch_of_fields_is_refused():
    with pytest.raises(ValueError, match="one displacement field"):
        physical_displacement(torch.zeros(2, 3, 2, 2, 2), np.eye(4), np.eye(4), (2, 2, 2), np.eye(4))


def test_unknown_mode(field, moving):
    with pytest.raises(ValueError, match="mode"):
        resample(moving, MOVING, field, FIXED, "cubic")
