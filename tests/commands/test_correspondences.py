from __future__ import annotations

import csv
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from screws import screw

from tools.__main__ import main
from tools.commands import correspondences as command
from tools.data.checks import DataError
from tools.data.decathlon import read_dataset
from tools.shape.distance import point_distances
from tools.shape.particles import read_particle_set, read_particles, write_particles
from tools.shape.pdm import PointDistributionModel
from tools.shape.sampling import farthest_point_order
from tools.shape.surfaces import Surface, mirrored, read_label_surface, read_surface, write_surface


@pytest.fixture(autouse=True)
def few_controls(monkeypatch):
    monkeypatch.setattr(command, "correspond", functools.partial(command.correspond, controls=64, refinements=1))


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_data_set_gets_points_and_a_model(tiny_dataset, tmp_path, capsys):
    splits = tmp_path / "splits.json"
    names = [f"case_{k:02d}" for k in range(6)]
    splits.write_text(json.dumps({"train": names[:4], "validation": [], "report": names[4:]}))
    to = tiny_dataset / "particles"
    assert main(["correspondences", "--dataset_dir", str(tiny_dataset), "--to", str(to), "--points=32", f"--splits_file={splits}"]) == 0
    captured = capsys.readouterr()
    assert "fitted      6/6 case_05" in captured.err
    assert captured.out.strip() == str(to)
    for case in read_dataset(tiny_dataset).cases:
        points = read_particles(case.particles, 32)
        assert point_distances(points, read_label_surface(case.label)).max() < 0.01
    model = PointDistributionModel.load(to / "model" / "pdm.npz")
    assert model.cases == 4
    assert read_particles(to / "model" / "template.particles") == pytest.approx(model.mean, abs=1e-4)
    template = read_surface(to / "model" / "template.vtk")
    assert len(template.vertices) > 100
    assert np.linalg.norm(template.vertices[:, None] - model.mean, axis=2).min(0).max() < 1e-3  # the points are vertices of the mesh
    cases = rows_of(to / "model" / "cases.csv")
    assert [row["training"] for row in cases] == ["True"] * 4 + ["False"] * 2
    assert [row["model_surface_mm"] != "" for row in cases] == [False] * 4 + [True] * 2
    assert max(float(row["points_surface_mm"]) for row in cases) < 0.3
    for table in ("compactness", "generalisation", "specificity"):
        assert rows_of(to / "model" / f"{table}.csv")[0]["modes"] == "1"
    for picture in ("modes.png", "statistics.png"):
        assert (to / "model" / picture).stat().st_size > 10_000
    assert json.loads((to / "model" / "summary.json").read_text())["training_shapes"] == 4


def test_every_case_lies_in_the_space_of_the_model(tiny_dataset, tmp_path):
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"train": [f"case_{k:02d}" for k in range(5)], "validation": []}))
    write_particles(tmp_path / "out" / "model" / "aligned" / "of_an_earlier_run.particles", np.ones((4, 3)))
    command.correspondences(str(tmp_path / "out"), dataset_dir=str(tiny_dataset), points=16, mirror="case_02", splits_file=str(splits))
    folder = tmp_path / "out" / "model"
    model, rows = PointDistributionModel.load(folder / "pdm.npz"), rows_of(folder / "scores.csv")
    assert [row["case"] for row in rows] == [f"case_{k:02d}" for k in range(6)]
    assert [row["training"] for row in rows] == ["True"] * 5 + ["False"]
    scores = np.array([[float(row[f"mode_{k + 1}"]) for k in range(len(model.deviations))] for row in rows])
    assert scores[:5].std(0, ddof=1) == pytest.approx(model.deviations, rel=1e-3)
    assert scores[:5].mean(0) == pytest.approx(0, abs=1e-3)
    assert len(list((folder / "aligned").iterdir())) == 6
    for row, own in zip(rows, scores):
        aligned = read_particles(folder / "aligned" / f"{row['case']}.particles")
        assert model.project(aligned) == pytest.approx(own, abs=1e-3)
        points = read_particles(tmp_path / "out" / f"{row['case']}.particles") * ([-1, 1, 1] if row["case"] == "case_02" else [1, 1, 1])
        assert pdist(aligned) == pytest.approx(pdist(points), abs=1e-3)  # moved as a whole


def test_left_sides_are_mirrored_for_the_model_only(tiny_dataset, tmp_path):
    for k in range(3):
        surface = read_label_surface(tiny_dataset / "labelsTr" / f"case_{k:02d}.nii.gz")
        write_surface(tmp_path / "meshes" / f"bone_{k}_{'Left' if k == 1 else 'Right'}.ply", surface)
    command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), points=16, mirror="_Left$", turn=False)
    assert [row["mirrored"] for row in rows_of(tmp_path / "out" / "model" / "cases.csv")] == ["False", "True", "False"]
    names = ["bone_0_Right", "bone_1_Left", "bone_2_Right"]
    points = read_particle_set([tmp_path / "out" / f"{name}.particles" for name in names], 16)
    for name, own in zip(names, points):
        assert point_distances(own, read_surface(tmp_path / "meshes" / f"{name}.ply")).max() < 0.01
    # in the world, the mirrored bone's points run the other way round in x
    centred = points - points.mean(1, keepdims=True)
    assert np.corrcoef(centred[0, :, 0], centred[1, :, 0])[0, 1] < -0.5 < 0.5 < np.corrcoef(centred[0, :, 0], centred[2, :, 0])[0, 1]


def write_screws(folder: Path) -> None:
    """Five twisted ellipsoids, two of them of the other side."""
    for k, width in enumerate((8.0, 8.5, 7.5, 9.0, 8.2)):
        surface = screw(1.0, width)
        write_surface(folder / f"bone_{k}_{'L' if k in (1, 3) else 'R'}.ply", mirrored(surface) if k in (1, 3) else surface)


def test_a_mesh_in_metres(tmp_path):
    write_screws(tmp_path / "meshes")
    surface = read_surface(tmp_path / "meshes" / "bone_2_R.ply")
    write_surface(tmp_path / "meshes" / "bone_2_R.ply", Surface(surface.vertices / 1000, surface.faces))
    with pytest.raises(DataError, match=r"bone_2_R\.ply: 0\.0125 mm in size .* the median of the shapes is 12\.6; is it in other units"):
        command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), points=16)


def test_meshes_that_are_all_the_same(tmp_path):
    for k in range(3):
        write_surface(tmp_path / "meshes" / f"bone_{k}.ply", screw())
    with pytest.raises(DataError, match="meshes: all shapes are the same"):
        command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), points=16)
    assert not (tmp_path / "out").exists()


def test_an_open_mesh_is_named(tmp_path):
    write_screws(tmp_path / "meshes")
    surface = read_surface(tmp_path / "meshes" / "bone_2_R.ply")
    write_surface(tmp_path / "meshes" / "bone_2_R.ply", Surface(surface.vertices, surface.faces[10:]))
    with pytest.raises(DataError, match=r"bone_2_R\.ply: not a closed surface"):
        command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), points=16)


def test_the_worst_case_is_named(tmp_path, capsys):
    write_screws(tmp_path / "meshes")
    surface = read_surface(tmp_path / "meshes" / "bone_2_R.ply")
    wavy = surface.vertices * (1 + 0.3 * np.sin(2 * surface.vertices[:, :1]))
    write_surface(tmp_path / "meshes" / "bone_2_R.ply", Surface(wavy, surface.faces))
    command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), points=32, mirror="L$")
    worst = json.loads((tmp_path / "out" / "model" / "summary.json").read_text())["worst_case"]
    rows = {row["case"]: float(row["points_surface_mm"]) for row in rows_of(tmp_path / "out" / "model" / "cases.csv")}
    assert worst["case"] == "bone_2_R"
    assert worst["points_surface_mm"] == rows["bone_2_R"] == max(rows.values())
    assert worst["median_mm"] == np.median(list(rows.values()))
    assert "worst: bone_2_R, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        (None, "bone_1_L, bone_3_L: mirror images of bone_4_R; --mirror REGEX"),
        ("bone_1_L", "bone_3_L: mirror images of bone_4_R, with this --mirror; --mirror REGEX"),
    ],
)
def test_both_sides_are_not_mixed(tmp_path, mirror, message):
    write_screws(tmp_path / "meshes")
    with pytest.raises(DataError, match=message):
        command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), points=16, mirror=mirror)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"mirror": "_L$"}, {"check_sides": False}], ids=["mirrored", "overruled"])
def test_both_sides_are_taken_where_that_is_asked_for(tmp_path, options):
    write_screws(tmp_path / "meshes")
    command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), points=16, **options)
    assert len(list((tmp_path / "out").glob("*.particles"))) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 3}, "--points must be"),
        ({"registration": "guess"}, "--registration must be splines or distance_maps"),
        ({"share": 0}, "--share must be a number above 0"),
        ({"share": "much"}, "--share must be a number above 0"),
        ({"meshes": "."}, "either --dataset_dir or --meshes"),
        ({"label": "two"}, "--label must be"),
        ({"label": "7"}, "case_00.nii.gz: no voxel of label 7"),
        ({"mirror": "("}, "not a regular expression"),
        ({"mirror": "_L"}, "found in no case's name"),
        ({"splits_file": "missing.json"}, "missing.json: missing"),
        ({"points": 5000}, "too few for 5000 points"),
    ],
)
def test_unusable_requests_stop_before_anything_is_written(tiny_dataset, tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        command.correspondences(str(tmp_path / "out"), dataset_dir=str(tiny_dataset), **options)
    assert not (tmp_path / "out").exists()


def test_too_few_training_cases(tiny_dataset, tmp_path):
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"train": ["case_00", "case_01"], "validation": []}))
    with pytest.raises(DataError, match="2 training shapes, at least 3"):
        command.correspondences(str(tmp_path / "out"), dataset_dir=str(tiny_dataset), splits_file=str(splits))


def test_cases_whose_label_is_not_used_shape_nothing(tiny_dataset, tmp_path):
    splits, names = tmp_path / "splits.json", [f"case_{k:02d}" for k in range(5)]
    splits.write_text(json.dumps({"train": names, "labelled": names[1:4], "validation": ["case_05"]}))
    command.correspondences(str(tmp_path / "out"), dataset_dir=str(tiny_dataset), points=16, splits_file=str(splits))
    rows = rows_of(tmp_path / "out" / "model" / "cases.csv")
    assert [row["case"] for row in rows if row["training"] == "True"] == names[1:4]
    assert len(rows) == 6


def test_split_of_another_data_set(tiny_dataset, tmp_path):
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"train": ["case_00", "case_01", "case_02", "knee_7"], "validation": []}))
    with pytest.raises(DataError, match=r"splits\.json: train case knee_7 is not in the data set"):
        command.correspondences(str(tmp_path / "out"), dataset_dir=str(tiny_dataset), splits_file=str(splits))


def test_truncated_label_is_named(tiny_dataset, tmp_path):
    path = tiny_dataset / "labelsTr" / "case_03.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"case_03\.nii\.gz: truncated"):
        command.correspondences(str(tmp_path / "out"), dataset_dir=str(tiny_dataset))


def bones(folder: Path, tiny_dataset: Path, cases: int = 4) -> list[str]:
    """Meshes of which the second is a left one, and 24 other points on each of them (its vertices), named as ShapeWorks does."""
    names = []
    for k in range(cases):
        surface = read_label_surface(tiny_dataset / "labelsTr" / f"case_{k:02d}.nii.gz")
        names.append(f"bone_{k}_{'Left' if k == 1 else 'Right'}")
        write_surface(folder / f"{names[-1]}.ply", surface)
        points = surface.vertices[farthest_point_order(surface.vertices, 24)]
        write_particles(folder / f"bone_{k}.particles", points * [-1, 1, 1] if k == 1 else points)
    return names


def test_another_model_beside(tiny_dataset, tmp_path, capsys):
    bones(tmp_path / "meshes", tiny_dataset)
    command.correspondences(
        str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), points=16, mirror="_Left$", turn=False, against=str(tmp_path / "meshes")
    )
    assert "carried from all other cases" in capsys.readouterr().err
    rows = rows_of(tmp_path / "out" / "model" / "statistics.csv")
    assert [(row["model"], row["modes"]) for row in rows] == [(name, str(k)) for name in ("model", "against") for k in (1, 2, 3)]
    assert {row["points"] for row in rows} == {"16"}
    assert all((row["surface_mm"] != "") == (row["modes"] != "3") for row in rows)
    compared = json.loads((tmp_path / "out" / "model" / "summary.json").read_text())["against"]
    assert compared["points_elsewhere"] == 0
    assert compared["against"]["points_off_surface_mm"] < 0.01  # the left one was found in its mirror image
    # farthest points of each case alone correspond far worse
    assert compared["model"]["variance_mm2_per_point"] < compared["against"]["variance_mm2_per_point"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "bone_2.particles").unlink(), "no particle files for case bone_2_Right"),
        (lambda folder: write_particles(folder / "bone_2_Right_a.particles", np.zeros((24, 3))), "2 particle files for case bone_2_Right"),
        (lambda folder: write_particles(folder / "bone_2.particles", np.zeros((20, 3))), r"bone_2\.particles: 20 points, but"),
        (lambda folder: [write_particles(folder / f"bone_{k}.particles", np.full((24, 3), 900.0)) for k in range(4)], "wrong world"),
    ],
)
def test_other_points_that_cannot_be_compared(tiny_dataset, tmp_path, damage, message):
    bones(tmp_path / "meshes", tiny_dataset)
    damage(tmp_path / "meshes")
    with pytest.raises(DataError, match=message):
        command.correspondences(
            str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), points=16, against=str(tmp_path / "meshes"), mirror="L"
        )
    assert not (tmp_path / "out").exists()


def test_particles_of_another_origin_are_kept(tiny_dataset, tmp_path):
    write_particles(tmp_path / "case_00.particles", np.ones((16, 3)))
    with pytest.raises(DataError, match=r"case_00\.particles: not written by this command; .* --force true"):
        command.correspondences(str(tmp_path), dataset_dir=str(tiny_dataset), points=16)
    assert (read_particles(tmp_path / "case_00.particles") == 1).all()


def test_own_particles_are_written_anew_and_others_by_force(tiny_dataset, tmp_path):
    for force in (True, False):
        write_particles(tmp_path / "case_00.particles", np.ones((16, 3)))
        command.correspondences(str(tmp_path), dataset_dir=str(tiny_dataset), points=16, force=force)
        assert not (read_particles(tmp_path / "case_00.particles") == 1).any()


def test_the_points_to_compare_with_are_kept(tiny_dataset, tmp_path):
    folder = tmp_path / "meshes"
    bones(folder, tiny_dataset)
    with pytest.raises(DataError, match="the points of --against lie here"):
        command.correspondences(str(folder / "."), meshes=str(folder), points=16, against=str(folder), force=True)


def test_no_folder_of_other_points(tiny_dataset, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        command.correspondences(str(tmp_path / "out"), dataset_dir=str(tiny_dataset), against=str(tmp_path / "nowhere"))
