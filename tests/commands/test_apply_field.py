from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvista
import torch
from scipy.ndimage import map_coordinates

from tools.__main__ import main
from tools.commands.apply_field import apply_field
from tools.data.checks import DataError, read_nifti
from tools.data.files import write_nifti
from tools.registration.itk_field import physical_displacement, write_itk_field

# the moving image is the fixed one's world turned, shifted and bent; both hold a ball of radius 8 mm
FIXED_SHAPE, MOVING_SHAPE = (30, 28, 16), (34, 30, 22)
FIXED, MOVING = np.diag([-1.0, 1.1, 2.0, 1.0]), np.diag([1.0, -1.0, 1.4, 1.0])
FIXED[:3, 3], MOVING[:3, 3] = [14.0, -15.0, -15.0], [83.0, 55.0, -14.0]
TURN = np.deg2rad(15)
MOVING[:3, :3] = np.array([[np.cos(TURN), -np.sin(TURN), 0], [np.sin(TURN), np.cos(TURN), 0], [0, 0, 1]]) @ MOVING[:3, :3]


def world(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    voxels = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return voxels @ affine[:3, :3].T + affine[:3, 3]


def centre_of(path: Path) -> np.ndarray:
    volume, affine = read_nifti(path)
    return np.average(world(volume.shape, affine).reshape(-1, 3), axis=0, weights=volume.ravel().astype(float))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("apply_field")
    generator = torch.Generator().manual_seed(0)
    ddf = torch.nn.functional.interpolate(
        torch.randn((1, 3, 4, 4, 4), generator=generator), FIXED_SHAPE, mode="trilinear", align_corners=True
    )
    write_itk_field(root / "m_to_f_ddf.nii.gz", physical_displacement(ddf, FIXED, MOVING, FIXED_SHAPE, FIXED), FIXED)
    middle = MOVING[:3, :3] @ ((np.array(MOVING_SHAPE) - 1) / 2 - [3, 3, 3]) + MOVING[:3, 3]
    distance = np.linalg.norm(world(MOVING_SHAPE, MOVING) - middle, axis=-1)
    write_nifti(root / "image.nii.gz", (100 * np.exp(-((distance / 6) ** 2))).astype(np.float32), MOVING)
    write_nifti(root / "label.nii.gz", 3 * (distance < 8).astype(np.uint8), MOVING)
    sphere = pyvista.Sphere(radius=8, center=middle * [-1, -1, 1], theta_resolution=24, phi_resolution=24)
    sphere.save(root / "ball.vtk")
    np.savetxt(root / "ball.particles", sphere.points)
    return root


def test_image_label_points_and_mesh_land_in_the_same_place(folder, tmp_path, capsys):
    names = ["image.nii.gz", "label.nii.gz", "ball.vtk", "ball.particles"]
    apply_field(str(folder / "m_to_f_ddf.nii.gz"), ",".join(str(folder / name) for name in names), str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    printed = capsys.readouterr().out
    assert "image.nii.gz: linear" in printed
    assert "label.nii.gz: nearest" in printed
    label, affine = read_nifti(tmp_path / "label.nii.gz")
    assert label.shape == FIXED_SHAPE
    assert label.dtype == np.uint8
    assert set(np.unique(label)) == {0, 3}
    np.testing.assert_allclose(affine, FIXED, atol=1e-4)
    mesh = pyvista.read(tmp_path / "ball.vtk")
    np.testing.assert_allclose(np.loadtxt(tmp_path / "ball.particles"), mesh.points, atol=1e-3)
    # the moved vertices lie where the resampled image has the value of the ball's surface
    image, _ = read_nifti(tmp_path / "image.nii.gz")
    to_voxel = np.linalg.inv(FIXED)
    vertices = np.asarray(mesh.points) * [-1, -1, 1] @ to_voxel[:3, :3].T + to_voxel[:3, 3]
    inside = (vertices > 0).all(1) & (vertices < np.array(FIXED_SHAPE) - 1).all(1)
    assert inside.mean() > 0.8
    distance = 6 * np.sqrt(-np.log(map_coordinates(image, vertices[inside].T, order=1) / 100))
    np.testing.assert_allclose(distance, 8, atol=0.5)
    assert distance.mean() == pytest.approx(8, abs=0.2)


def test_inverse_brings_everything_back(folder, tmp_path):
    field = str(folder / "m_to_f_ddf.nii.gz")
    names = ["label.nii.gz", "ball.vtk", "ball.particles"]
    apply_field(field, ",".join(str(folder / name) for name in names), str(tmp_path / "there"))
    moved = ",".join(str(tmp_path / "there" / name) for name in names)
    apply_field(field, moved, str(tmp_path / "back"), inverse=True, reference=str(folder / "image.nii.gz"))
    np.testing.assert_allclose(np.loadtxt(tmp_path / "back/ball.particles"), np.loadtxt(folder / "ball.particles"), atol=0.01)
    np.testing.assert_allclose(pyvista.read(tmp_path / "back/ball.vtk").points, pyvista.read(folder / "ball.vtk").points, atol=0.01)
    before, affine = read_nifti(folder / "label.nii.gz")
    after, affine_after = read_nifti(tmp_path / "back/label.nii.gz")
    np.testing.assert_allclose(affine_after, affine, atol=1e-4)
    dice = 2 * ((before > 0) & (after > 0)).sum() / ((before > 0).sum() + (after > 0).sum())
    assert dice > 0.9


def test_voxels_and_points_that_a_folding_field_does_not_reach_are_counted(folder, tmp_path, capsys):
    """A block is turned round and stretched, which tears the map at both of its ends."""
    ddf = torch.zeros(1, 3, *FIXED_SHAPE)
    ddf[0, 0, 10:20] = (14.5 - torch.arange(10.0, 20.0)).view(-1, 1, 1) * 3
    write_itk_field(tmp_path / "fold_ddf.nii.gz", physical_displacement(ddf, FIXED, FIXED, FIXED_SHAPE, FIXED), FIXED)
    write_nifti(tmp_path / "fixed.nii.gz", np.ones(FIXED_SHAPE, np.float32), FIXED)
    image, field = str(tmp_path / "fixed.nii.gz"), str(tmp_path / "fold_ddf.nii.gz")
    apply_field(field, image, str(tmp_path / "back.nii.gz"), inverse=True, reference=image)
    assert "voxels have no exact place there (the field folds)" in capsys.readouterr().out
    np.savetxt(tmp_path / "all.particles", world(FIXED_SHAPE, FIXED).reshape(-1, 3) * [-1, -1, 1])
    apply_field(field, str(tmp_path / "all.particles"), str(tmp_path / "back.particles"))
    assert "points have no exact place there (the field folds)" in capsys.readouterr().out
    apply_field(str(folder / "m_to_f_ddf.nii.gz"), image, str(tmp_path / "other.nii.gz"), inverse=True, reference=image)
    assert "no exact place" not in capsys.readouterr().out


def test_reference_gives_the_output_grid(folder, tmp_path):
    grid = np.diag([2.0, 2.0, 2.0, 1.0])
    grid[:3, 3] = [-15, -15, -15]
    write_nifti(tmp_path / "grid.nii.gz", np.arange(15**3, dtype=np.float32).reshape(15, 15, 15), grid)
    field = str(folder / "m_to_f_ddf.nii.gz")
    apply_field(field, str(folder / "label.nii.gz"), str(tmp_path / "a.nii.gz"), reference=str(tmp_path / "grid.nii.gz"))
    apply_field(field, str(folder / "label.nii.gz"), str(tmp_path / "b.nii.gz"))
    assert read_nifti(tmp_path / "a.nii.gz")[0].shape == (15, 15, 15)
    np.testing.assert_allclose(centre_of(tmp_path / "a.nii.gz"), centre_of(tmp_path / "b.nii.gz"), atol=0.4)


@pytest.mark.parametrize(("options", "fractional"), [({"mode": "linear"}, True), ({"mode": "nearest"}, False), ({"label": True}, False)])
def test_mode(folder, tmp_path, options, fractional):
    apply_field(str(folder / "m_to_f_ddf.nii.gz"), str(folder / "label.nii.gz"), str(tmp_path / "out.nii.gz"), **options)
    volume, _ = read_nifti(tmp_path / "out.nii.gz")
    assert (set(np.unique(volume)) != {0, 3}) == fractional


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"field": "none_ddf.nii.gz"}, "none_ddf.nii.gz: missing"),
        ({"field": "image.nii.gz"}, "image.nii.gz: not a displacement field"),
        ({"input": "none.nii.gz"}, "none.nii.gz: missing"),
        ({"input": "ball.xyz"}, "ball.xyz: unknown extension"),
        ({"output": "out.vtk"}, r"out.vtk: image.nii.gz is written as one of \.nii\.gz \.nii"),
        ({"output": "image.nii.gz"}, "would overwrite an input"),
        ({"input": "image.nii.gz,label.nii.gz"}, "several inputs need a folder"),
        ({"inverse": True}, "image.nii.gz: an image needs --reference"),
        ({"input": ","}, "--input names no file"),
        ({"mode": "cubic"}, "--mode must be one of"),
        ({"reference": "none.nii.gz"}, "none.nii.gz: missing"),
    ],
)
def test_bad_arguments(folder, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    with pytest.raises(DataError, match=message) as caught:
        apply_field(**{"field": "m_to_f_ddf.nii.gz", "input": "image.nii.gz", "output": "out.nii.gz", **changes})
    assert "\n" not in str(caught.value)
    assert sorted(folder.iterdir()) == before


def test_two_inputs_of_one_name(folder, tmp_path):
    write_nifti(tmp_path / "image.nii.gz", np.zeros((3, 3, 3), np.float32), np.eye(4))
    with pytest.raises(DataError, match="overwrite each other"):
        apply_field(str(folder / "m_to_f_ddf.nii.gz"), f"{folder / 'image.nii.gz'},{tmp_path / 'image.nii.gz'}", str(tmp_path / "out"))


def test_image_with_nan(folder, tmp_path):
    write_nifti(tmp_path / "nan.nii.gz", np.full((3, 3, 3), np.nan, np.float32), np.eye(4))
    with pytest.raises(DataError, match=r"nan\.nii\.gz: voxels that are not finite"):
        apply_field(str(folder / "m_to_f_ddf.nii.gz"), str(tmp_path / "nan.nii.gz"), str(tmp_path / "out.nii.gz"))


def test_command_line(folder, tmp_path, capsys):
    arguments = ["--field", str(folder / "m_to_f_ddf.nii.gz"), "--input", str(folder / "ball.particles")]
    assert main(["apply-field", *arguments, "--output", str(tmp_path / "a.particles"), "--inverse", "false"]) == 0
    assert main(["apply-field", *arguments, "--output", str(tmp_path / "b.particles"), "--inverse"]) == 0
    assert not np.allclose(np.loadtxt(tmp_path / "a.particles"), np.loadtxt(tmp_path / "b.particles"), atol=1)
    assert main(["apply-field", *arguments, "--output", str(tmp_path / "a.nii.gz")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
