from __future__ import annotations

import itk
import numpy as np
import pytest
import pyvista

from tools.data.checks import DataError
from tools.registration.shapes import move_mesh, move_points


def shift(points: np.ndarray) -> np.ndarray:
    return points + [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.particles", "0 0 0\n 1.5 2 -3\n\n", "1.000000 2.000000 3.000000\n2.500000 4.000000 0.000000\n"),
        ("a.csv", 'name,X,y,z\n"a, b",0,0,0\n', 'name,X,y,z\n"a, b",1.000000,2.000000,3.000000\n'),
        ("a.csv", "z,y,x\n30,20,10\n", "z,y,x\n33.000000,22.000000,11.000000\n"),
        ("a.fcsv", "# CoordinateSystem = LPS\nid,0,0,0,rest\n", "# CoordinateSystem = LPS\nid,1.000000,2.000000,3.000000,rest\n"),
        ("a.fcsv", "# CoordinateSystem = RAS\nid,0,0,0,rest\n", "# CoordinateSystem = RAS\nid,-1.000000,-2.000000,3.000000,rest\n"),
        ("a.fcsv", "# CoordinateSystem = 0\nid,10,0,0\n", "# CoordinateSystem = 0\nid,9.000000,-2.000000,3.000000\n"),
    ],
)
def test_points(tmp_path, name, before, after):
    (tmp_path / name).write_text(before)
    move_points(tmp_path / name, tmp_path / "out" / name, shift)
    assert (tmp_path / "out" / name).read_text() == after


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.particles", "", "no points"),
        ("a.particles", "1 2\n", "a line of 2 values"),
        ("a.particles", "1 2 x\n", "without three coordinates"),
        ("a.particles", "1 2 nan\n", "not finite"),
        ("a.csv", "1,2,3\n", "must name the columns"),
        ("a.csv", "x,y,z\n1,2\n", "without three coordinates"),
        ("a.csv", "", "must name the columns"),
        ("a.fcsv", "# CoordinateSystem = IJK\nid,1,2,3\n", "CoordinateSystem"),
    ],
)
def test_bad_points(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"{name}: .*{message}"):
        move_points(tmp_path / name, tmp_path / f"out_{name}", shift)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_points_keep_their_format(tmp_path):
    with pytest.raises(DataError, match="format of their source"):
        move_points(tmp_path / "a.csv", tmp_path / "b.particles", shift)


def test_missing_points(tmp_path):
    with pytest.raises(DataError, match=r"a\.csv: missing"):
        move_points(tmp_path / "a.csv", tmp_path / "b.csv", shift)


@pytest.mark.parametrize("suffix", [".vtk", ".vtp", ".ply", ".stl", ".obj"])
def test_meshes_move_and_keep_their_faces(tmp_path, suffix):
    sphere = pyvista.Sphere(radius=10, theta_resolution=8, phi_resolution=6)
    sphere.save(tmp_path / f"a{suffix}")
    before = pyvista.read(tmp_path / f"a{suffix}")
    assert move_mesh(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}", shift) == before.n_points
    after = pyvista.read(tmp_path / f"b{suffix}")
    np.testing.assert_allclose(after.points, before.points + [1, 2, 3], atol=1e-4)
    np.testing.assert_array_equal(after.faces, before.faces)


def test_normals_of_the_unmoved_mesh_are_dropped(tmp_path):
    pyvista.Sphere(theta_resolution=8, phi_resolution=6).compute_normals().save(tmp_path / "a.vtk")
    move_mesh(tmp_path / "a.vtk", tmp_path / "b.vtk", shift)
    assert "Normals" in pyvista.read(tmp_path / "a.vtk").point_data
    assert "Normals" not in pyvista.read(tmp_path / "b.vtk").point_data


def test_a_mesh_may_change_its_format_and_keeps_its_data(tmp_path):
    sphere = pyvista.Sphere(theta_resolution=8, phi_resolution=6)
    sphere["region"] = np.arange(sphere.n_points)
    sphere.save(tmp_path / "a.vtk")
    move_mesh(tmp_path / "a.vtk", tmp_path / "b.vtp", shift)
    np.testing.assert_array_equal(pyvista.read(tmp_path / "b.vtp")["region"], np.arange(sphere.n_points))


def test_itk_reads_moved_meshes(tmp_path):
    pyvista.Sphere(center=(90, 0, 0), theta_resolution=8, phi_resolution=6).save(tmp_path / "a.vtk")
    move_mesh(tmp_path / "a.vtk", tmp_path / "b.vtk", shift)
    mesh, expected = itk.meshread(tmp_path / "b.vtk"), pyvista.read(tmp_path / "a.vtk")
    assert mesh.GetNumberOfCells() == expected.n_cells
    points = [list(mesh.GetPoint(k)) for k in range(mesh.GetNumberOfPoints())]
    np.testing.assert_allclose(points, expected.points + [1, 2, 3], rtol=1e-6)


def test_missing_mesh(tmp_path):
    with pytest.raises(DataError, match=r"a\.ply: missing"):
        move_mesh(tmp_path / "a.ply", tmp_path / "b.ply", shift)


@pytest.mark.parametrize("name", ["a.vtk", "a.vtp", "a.ply", "a.stl", "a.obj"])
def test_unreadable_mesh(tmp_path, name):
    (tmp_path / name).write_text("this is no mesh")
    with pytest.raises(DataError, match=name):
        move_mesh(tmp_path / name, tmp_path / f"out_{name}", shift)


def test_empty_mesh(tmp_path):
    pyvista.PolyData().save(tmp_path / "a.vtp")
    with pytest.raises(DataError, match="empty or damaged mesh"):
        move_mesh(tmp_path / "a.vtp", tmp_path / "b.vtp", shift)


def test_an_image_is_no_mesh(tmp_path):
    pyvista.ImageData(dimensions=(3, 3, 3)).save(tmp_path / "a.vtk")
    with pytest.raises(DataError, match="not a mesh"):
        move_mesh(tmp_path / "a.vtk", tmp_path / "b.vtk", shift)


def test_a_volume_mesh_cannot_become_a_surface(tmp_path):
    pyvista.ImageData(dimensions=(3, 3, 3)).cast_to_unstructured_grid().save(tmp_path / "a.vtk")
    with pytest.raises(DataError, match=r"b\.stl: a UnstructuredGrid cannot be written"):
        move_mesh(tmp_path / "a.vtk", tmp_path / "b.stl", shift)
    assert move_mesh(tmp_path / "a.vtk", tmp_path / "b.vtk", shift) == 27
