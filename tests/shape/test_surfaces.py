from __future__ import annotations

import itk
import numpy as np
import pytest

from tools.data.checks import DataError
from tools.data.files import write_nifti
from tools.shape.surfaces import (
    Surface,
    closed_part,
    decimated,
    label_surface,
    mirrored,
    read_label_surface,
    read_surface,
    size,
    smoothed,
    vertex_normals,
    volume,
    write_surface,
)


def ball(radius: float = 8.0, shape: tuple[int, int, int] = (24, 26, 28)) -> np.ndarray:
    centre = (np.array(shape) - 1) / 2
    position = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    return (np.linalg.norm(position - centre, axis=-1) <= radius).astype(np.uint8)


def single_voxel() -> np.ndarray:
    label = np.zeros((5, 5, 5))
    label[2, 2, 2] = 1
    return label


def oblique() -> np.ndarray:
    turn = np.deg2rad(30)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, -1]]) * 0.5
    affine[:3, 3] = [10.0, -20.0, 30.0]
    return affine


@pytest.mark.parametrize("affine", [np.eye(4), oblique()], ids=["unit", "oblique and flipped"])
def test_surface_lies_in_lps_millimetres(affine):
    surface = label_surface(ball(), affine)
    scale = np.linalg.norm(affine[:3, 0])
    centre = (affine @ np.array([11.5, 12.5, 13.5, 1.0]))[:3] * [-1, -1, 1]
    assert surface.vertices.mean(0) == pytest.approx(centre, abs=0.05)
    assert np.linalg.norm(surface.vertices - centre, axis=1) == pytest.approx(8 * scale, abs=0.6 * scale)
    assert volume(surface) == pytest.approx(ball().sum() * scale**3, rel=0.03)


def test_normals_look_outwards_in_a_left_handed_grid():
    surface = label_surface(ball(), oblique())
    outwards = surface.vertices - surface.vertices.mean(0)
    assert ((vertex_normals(surface.vertices, surface.faces) * outwards).sum(1) > 0).all()


def test_largest_component_and_label_value():
    label = ball(5.0) * 2
    label[0:2, 0:2, 0:2] = 2
    label[20:, 20:, 20:] = 1
    surface = label_surface(label, np.eye(4), value=2)
    assert np.abs(surface.vertices - np.array([-11.5, -12.5, 13.5])).max() < 6


def test_cavities_are_filled():
    shell = ball(8.0) - ball(5.0)
    assert label_surface(shell, np.eye(4)).vertices == pytest.approx(label_surface(ball(8.0), np.eye(4)).vertices)


def test_a_cavity_that_the_gaussian_closes_changes_no_surface_far_from_it():
    label = ball(8.0)
    label[11, 12, 13] = 0
    surface = label_surface(label, np.eye(4))
    assert surface.vertices == pytest.approx(label_surface(ball(8.0), np.eye(4)).vertices)


def test_structure_at_the_border_is_closed():
    surface = label_surface(np.ones((6, 6, 6)), np.eye(4))
    assert volume(surface) == pytest.approx(216, rel=0.12)  # smoothing rounds the edges off


@pytest.mark.parametrize(
    ("label", "value", "message"), [(ball(), 3, "no voxel of label 3"), (single_voxel(), None, "too few for a surface")]
)
def test_no_surface_is_named(label, value, message):
    with pytest.raises(DataError, match=message) as error:
        label_surface(label, np.eye(4), value, name="case.nii.gz")
    assert str(error.value).startswith("case.nii.gz: ")


def test_label_map_with_nan_is_named(tmp_path):
    label = ball().astype(np.float32)
    label[0, 0, 0] = np.nan
    write_nifti(tmp_path / "case.nii.gz", label, np.eye(4))
    with pytest.raises(DataError, match=r"case\.nii\.gz: label values are NaN or infinite"):
        read_label_surface(tmp_path / "case.nii.gz")


@pytest.mark.parametrize("suffix", [".vtk", ".ply", ".stl"])
def test_mesh_files_keep_the_surface(tmp_path, suffix):
    surface = label_surface(ball(5.0), oblique())
    write_surface(tmp_path / f"mesh{suffix}", surface)
    back = read_surface(tmp_path / f"mesh{suffix}")
    assert len(back.vertices) == len(surface.vertices)
    assert volume(back) == pytest.approx(volume(surface), rel=1e-4)


def test_itk_reads_what_is_written(tmp_path):
    surface = label_surface(ball(5.0), oblique())
    write_surface(tmp_path / "mesh.vtk", surface)
    mesh = itk.meshread(tmp_path / "mesh.vtk")
    assert mesh.GetNumberOfCells() == len(surface.faces)
    points = [list(mesh.GetPoint(k)) for k in range(mesh.GetNumberOfPoints())]
    np.testing.assert_allclose(points, surface.vertices, atol=1e-4)


def test_mirror_image_looks_outwards():
    surface = label_surface(ball(5.0), oblique())
    assert volume(mirrored(surface)) == pytest.approx(volume(surface))
    assert mirrored(surface).vertices[:, 0] == pytest.approx(-surface.vertices[:, 0])


def test_specks_and_inner_walls_are_no_part_of_a_mesh():
    outer, inner = label_surface(ball(8.0), np.eye(4)), label_surface(ball(4.0), np.eye(4))
    vertices = [outer.vertices, inner.vertices, inner.vertices / 3 + 40]
    shifts = np.cumsum([0, len(vertices[0]), len(vertices[1])])
    faces = [faces + shift for faces, shift in zip((outer.faces, inner.faces[:, ::-1], inner.faces), shifts)]
    found = closed_part(Surface(np.concatenate(vertices), np.concatenate(faces)))
    assert len(found.vertices) == len(outer.vertices)
    assert volume(found) == pytest.approx(volume(outer))


def test_an_open_mesh_is_named():
    surface = label_surface(ball(5.0), np.eye(4))
    with pytest.raises(DataError, match=r"bone\.ply: not a closed surface, 3 of its edges"):
        closed_part(Surface(surface.vertices, surface.faces[1:]), "bone.ply")


def test_size():
    assert size(Surface(np.array([[3.0, 0, 0], [-3, 0, 0], [0, 4, 0], [0, -4, 0]]), np.zeros((0, 3)))) == pytest.approx(12.5**0.5)


def test_decimation_keeps_the_form():
    surface = label_surface(ball(), np.eye(4))
    small = decimated(surface, 300)
    assert len(small.vertices) <= 330
    assert volume(small) == pytest.approx(volume(surface), rel=0.03)


def test_smoothing_takes_steps_away_but_no_volume():
    surface = label_surface(ball(), np.eye(4))
    smooth = smoothed(surface)
    assert volume(smooth) == pytest.approx(volume(surface), rel=0.02)
    before, after = (np.linalg.norm(s.vertices - s.vertices.mean(0), axis=1).std() for s in (surface, smooth))
    assert after < before


def test_damaged_mesh_is_named(tmp_path):
    (tmp_path / "bad.ply").write_text("ply\nformat ascii 1.0\n")
    with pytest.raises(DataError, match=r"bad\.ply: "):
        read_surface(tmp_path / "bad.ply")


def test_mesh_with_nan_is_named(tmp_path):
    surface = label_surface(ball(5.0), np.eye(4))
    vertices = surface.vertices.copy()
    vertices[3] = np.nan
    write_surface(tmp_path / "bad.vtk", Surface(vertices, surface.faces))
    with pytest.raises(DataError, match="not finite"):
        read_surface(tmp_path / "bad.vtk")
