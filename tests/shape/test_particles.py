from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.data.checks import DataError
from tools.shape.distance import point_distances
from tools.shape.particles import check_world, read_particle_set, read_particles, write_particles
from tools.shape.surfaces import mirrored, read_surface


def test_points_come_back(tmp_path):
    points = np.random.default_rng(0).normal(size=(20, 3)) * 100
    write_particles(tmp_path / "a.particles", points)
    assert read_particles(tmp_path / "a.particles", 20) == pytest.approx(points, abs=6e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no points"),
        ("1 2 3\n1 2\n", "line 2 holds no three numbers"),
        ("1 2 x\n", "line 1 holds no three numbers"),
        ("1 2 3\nnan 0 0\n", "point 2 is not finite"),
        ("1 2 3\n", "1 points, 2 are needed"),
    ],
)
def test_damaged_file_is_named(tmp_path, text, message):
    (tmp_path / "a.particles").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_particles(tmp_path / "a.particles", 2)
    assert "a.particles" in str(error.value)


def test_binary_file_is_named(tmp_path):
    (tmp_path / "a.particles").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="not readable as text"):
        read_particles(tmp_path / "a.particles")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.particles: missing"):
        read_particles(tmp_path / "a.particles")


def test_set_of_unequal_length_names_the_odd_one(tmp_path):
    write_particles(tmp_path / "a.particles", np.zeros((4, 3)))
    write_particles(tmp_path / "b.particles", np.zeros((5, 3)))
    with pytest.raises(DataError, match=r"b\.particles: 5 points, but a\.particles has 4"):
        read_particle_set([tmp_path / "a.particles", tmp_path / "b.particles"])


def test_nan_is_not_written(tmp_path):
    with pytest.raises(DataError, match="not all finite"):
        write_particles(tmp_path / "a.particles", np.full((4, 3), np.nan))
    assert not list(tmp_path.iterdir())


def test_wrong_world_is_noticed():
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = [50, 60, 70]
    inside = (np.random.default_rng(0).uniform(2, 18, (30, 3)) * [1, 1, 2] + [50, 60, 70]) * [-1, -1, 1]
    check_world("a.particles", inside, (20, 20, 20), affine)
    with pytest.raises(DataError, match="wrong world.*would fit as RAS"):
        check_world("a.particles", inside * [-1, -1, 1], (20, 20, 20), affine)
    with pytest.raises(DataError, match="wrong world\\)$"):
        check_world("a.particles", inside + 500, (20, 20, 20), affine)


@pytest.mark.parametrize("mesh", ["NonTAR_04_Calcaneus_Right", "TAR_04_Calcaneus_Left"])
def test_shapeworks_files_lie_on_their_meshes(shared_data: Path, mesh):
    folder = shared_data / "bones" / "calcaneus"
    name = mesh.rsplit("_", 1)[0]
    if not (folder / f"{name}.particles").is_file():
        pytest.skip("no ShapeWorks particles")
    surface = read_surface(folder / f"{mesh}.stl")
    points = read_particles(folder / f"{name}.particles", 4096)[::64]
    # the files of left bones are in the mirrored frame
    assert point_distances(points, mirrored(surface) if mesh.endswith("Left") else surface).mean() < 1.5
