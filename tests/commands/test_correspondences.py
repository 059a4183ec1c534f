from __future__ import annotations

import csv
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from pears import moved, pear
from scipy.spatial.distance import pdist
from screws import screw

from tools.__main__ import main
from tools.commands import correspondences as command
from tools.data.checks import DataError
from tools.data.decathlon import read_dataset
from tools.data.files import write_json
from tools.shape import correspondence
from tools.shape.distance import point_distances
from tools.shape.particles import read_particle_set, read_particles, write_particles
from tools.shape.pdm import PointDistributionModel
from tools.shape.procrustes import mirror as reflect
from tools.shape.sampling import farthest_point_order
from tools.shape.surfaces import Surface, mirrored, read_label_surface, read_surface, write_surface


@pytest.fixture(autouse=True)
def few_controls(monkeypatch):
    for name in ("correspond", "correspond_to"):
        monkeypatch.setattr(command, name, functools.partial(getattr(command, name), controls=64, refinements=1))


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


def test_new_cases_get_the_points_of_a_model(tmp_path, capsys):
    """Cases beside a training, the same cases by its model afterwards, and the same cases by themselves."""
    names = [f"pear_{k}" for k in range(8)]
    generator = np.random.default_rng(0)
    for k, name in enumerate(names):
        length, width, bend = generator.uniform(-1, 1, 3)
        surface = moved(pear(18 + 2 * length, 10 + width, 6 - length / 4, 0.25 + 0.05 * bend), 12, k)
        write_surface(tmp_path / "all" / f"{name}.ply", surface)
        if k > 4:
            write_surface(tmp_path / "new" / f"{name}.ply", surface)
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps({"train": names[:5], "validation": names[5:]}))
    model, to = tmp_path / "beside" / "model", tmp_path / "model"
    command.correspondences(str(tmp_path / "beside"), meshes=str(tmp_path / "all"), points=48, splits_file=str(splits))
    write_surface(to / "model" / "template.vtk", pear())
    (to / "model" / "compactness.csv").write_text("of an earlier run")
    options = ["--meshes", str(tmp_path / "new"), "--model", str(model)]
    assert main(["correspondences", "--to", str(to), *options]) == 0
    command.correspondences(str(tmp_path / "alone"), meshes=str(tmp_path / "new"), points=48)
    beside, by_model, alone = (
        read_particle_set([tmp_path / folder / f"{name}.particles" for name in names[5:]], 48) for folder in ("beside", "model", "alone")
    )
    # the template's mesh is the mean of the fits there and follows the mean points here, so a fit may slide: by less than a quarter of
    # these meshes' edges of about 2 mm in the mean, and by less than half of one anywhere
    assert np.linalg.norm(by_model - beside, axis=2).mean(1).max() < 0.5
    assert np.linalg.norm(by_model - beside, axis=2).max() < 1.0
    assert np.linalg.norm(alone - beside, axis=2).mean(1).min() > 5
    for name, points in zip(names[5:], by_model):
        assert point_distances(points, read_surface(tmp_path / "new" / f"{name}.ply")).max() < 0.01

    assert "cases that it has not seen" in capsys.readouterr().err
    written = {path.name for path in (to / "model").iterdir()}
    assert written == {"aligned", "cases.csv", "pdm.npz", "scores.csv", "summary.json", "template.particles", "template.vtk"}
    for name in ("template.vtk", "template.particles", "pdm.npz"):
        assert (to / "model" / name).read_bytes() == (model / name).read_bytes()
    columns = ("residual_mm", "points_surface_mm", "points_hausdorff_mm", "model_surface_mm", "model_hausdorff_mm")
    rows = {row["case"]: row for row in rows_of(model / "cases.csv")}
    for row in rows_of(to / "model" / "cases.csv"):
        assert row["training"] == "False"
        assert [float(row[column]) for column in columns] == pytest.approx([float(rows[row["case"]][c]) for c in columns], abs=0.3)
    pdm = PointDistributionModel.load(model / "pdm.npz")
    for row in rows_of(to / "model" / "scores.csv"):
        aligned = read_particles(to / "model" / "aligned" / f"{row['case']}.particles")
        assert pdm.project(aligned) == pytest.approx([float(row[f"mode_{k + 1}"]) for k in range(4)], abs=1e-3)
    summary = json.loads((to / "model" / "summary.json").read_text())
    assert (summary["training_shapes"], summary["shapes"], summary["model"]) == (5, 3, str(model))

    # its copy is a model as well, and a case gets the same points in whatever company
    (tmp_path / "one").mkdir()
    (tmp_path / "new" / "pear_6.ply").rename(tmp_path / "one" / "pear_6.ply")
    command.correspondences(str(tmp_path / "again"), meshes=str(tmp_path / "one"), model=str(to / "model"), points=48)
    assert (read_particles(tmp_path / "again" / "pear_6.particles") == by_model[1]).all()


def write_model(folder: Path, scaling: bool = False) -> np.ndarray:
    """A model of 24 points of a pear, with two modes of stretching that do not change its size much; returns its mean."""
    template = pear()
    template = Surface(template.vertices - template.vertices.mean(0), template.faces)
    mean = template.vertices[farthest_point_order(template.vertices, 24)]
    stretches = [1 + sign * 0.1 * np.array(axes) for axes in ((-1, 2, 0), (0, 1, -1)) for sign in (-1, 1)]
    write_surface(folder / "template.vtk", template)
    write_particles(folder / "template.particles", mean)
    PointDistributionModel.fit(np.stack([mean * stretch for stretch in stretches])).save(folder / "pdm.npz")
    write_json(folder / "summary.json", {"scaling": scaling})
    return mean


def write_pears(folder: Path) -> None:
    """A right and a left one, mirror images of each other."""
    surface = moved(pear(19, 9.3, 6.9, 0.27), 12, 1)
    write_surface(folder / "pear_R.ply", surface)
    write_surface(folder / "pear_L.ply", mirrored(surface))


@pytest.mark.parametrize("registration", ["splines", "distance_maps"])
def test_a_left_side_gets_the_points_of_a_right_model(tmp_path, monkeypatch, registration):
    coarse = functools.partial(correspondence.DistanceMapRegistration, resolution=20, iterations=20)
    monkeypatch.setattr(correspondence, "DistanceMapRegistration", coarse)
    write_model(tmp_path / "model")
    write_pears(tmp_path / "meshes")
    where = {"meshes": str(tmp_path / "meshes"), "model": str(tmp_path / "model")}
    command.correspondences(str(tmp_path / "out"), mirror="_L$", registration=registration, **where)
    left, right = read_particle_set([tmp_path / "out" / f"pear_{side}.particles" for side in "LR"], 24)
    assert reflect(left) == pytest.approx(right, abs=2e-4)  # twice what the files round


def test_another_side_than_the_model_is_refused(tmp_path):
    write_model(tmp_path / "model")
    write_pears(tmp_path / "meshes")
    with pytest.raises(DataError, match="pear_L: mirror images of the model's template; --mirror REGEX"):
        command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), model=str(tmp_path / "model"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scaling", [True, False])
def test_size_is_the_models_to_judge(tmp_path, scaling):
    """A case half as large again as the mean: a model without size follows it, one of like sizes cannot."""
    mean = write_model(tmp_path / "model", scaling)
    template = read_surface(tmp_path / "model" / "template.vtk")
    write_surface(tmp_path / "meshes" / "large.ply", moved(Surface(1.5 * template.vertices, template.faces), 10, 0))
    command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), model=str(tmp_path / "model"))
    rebuilt = float(rows_of(tmp_path / "out" / "model" / "cases.csv")[0]["model_surface_mm"])
    aligned = read_particles(tmp_path / "out" / "model" / "aligned" / "large.particles")
    if scaling:
        true = moved(Surface(1.5 * mean, template.faces), 10, 0).vertices
        assert np.linalg.norm(read_particles(tmp_path / "out" / "large.particles") - true, axis=1).mean() < 0.5  # of 54 mm length
        assert rebuilt < 0.5
        assert aligned.std() / mean.std() == pytest.approx(1, rel=0.01)
    else:
        assert rebuilt > 2
        assert aligned.std() / mean.std() > 1.2


def test_a_new_case_in_metres(tmp_path):
    write_model(tmp_path / "model")
    surface = pear()
    write_surface(tmp_path / "meshes" / "pear.ply", Surface(surface.vertices / 1000, surface.faces))
    with pytest.raises(DataError, match=r"pear\.ply: 0\.0\d+ mm in size .* the model's template is 1\d"):
        command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), model=str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "template.vtk").unlink(), r"template\.vtk: "),
        (lambda folder: (folder / "template.particles").unlink(), r"template\.particles: missing"),
        (lambda folder: (folder / "pdm.npz").unlink(), r"pdm\.npz: missing"),
        (lambda folder: (folder / "summary.json").unlink(), r"summary\.json: missing"),
        (lambda folder: write_json(folder / "summary.json", {}), r'summary\.json: no "scaling"'),
        (
            lambda folder: write_particles(folder / "template.particles", pear().vertices[:20]),
            r"template\.particles: 20 points, but .* has 24",
        ),
        (
            lambda folder: write_particles(folder / "template.particles", read_particles(folder / "template.particles") + [0, 0, 0.5]),
            r"template\.particles: not the mean of pdm\.npz .* make the model anew",
        ),
        (
            lambda folder: write_surface(folder / "template.vtk", pear(19)),
            r"template\.particles: its points are no vertices of template\.vtk",
        ),
    ],
)
def test_files_of_a_model_that_cannot_be_used(tmp_path, damage, message):
    write_model(tmp_path / "model")
    write_pears(tmp_path / "meshes")
    damage(tmp_path / "model")
    with pytest.raises(DataError, match=message):
        command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), model=str(tmp_path / "model"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 48}, "--points must be left out, or be the 24 of --model"),
        ({"splits_file": "splits.json"}, "--splits_file does not go with --model"),
        ({"scaling": True}, "--scaling does not go with --model"),
        ({"against": "."}, "--against does not go with --model"),
        ({"model": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_requests_that_do_not_go_with_a_model(tmp_path, options, message):
    write_model(tmp_path / "model")
    write_pears(tmp_path / "meshes")
    with pytest.raises(DataError, match=message):
        command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), **{"model": str(tmp_path / "model")} | options)
    assert not (tmp_path / "out").exists()


def test_the_model_is_not_written_over(tmp_path):
    write_model(tmp_path / "model")
    write_pears(tmp_path / "meshes")
    with pytest.raises(DataError, match="would be written over; choose another --to"):
        command.correspondences(str(tmp_path), meshes=str(tmp_path / "meshes"), model=str(tmp_path / "model"))


def test_no_mesh_at_all(tmp_path):
    write_model(tmp_path / "model")
    (tmp_path / "meshes").mkdir()
    with pytest.raises(DataError, match="meshes: no labelled case, or no mesh"):
        command.correspondences(str(tmp_path / "out"), meshes=str(tmp_path / "meshes"), model=str(tmp_path / "model"))
