from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch

from deepatlas.networks import registration_from_plan
from deepatlas.registering import RegisteredPair, Registrar, check_pairs, check_points, read_pairs, register_pairs
from tools.bundle.checkpoint import load_weights
from tools.data.checks import DataError
from tools.data.decathlon import Case
from tools.data.files import write_nifti
from tools.data.plan import Plan
from tools.shape.particles import read_particles, write_particles

STEMS = ("case_01_to_case_00", "case_01_to_turned", "case_01_to_thick")


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean([2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in (2, 5)]))


def middles(label: nib.Nifti1Image) -> np.ndarray:
    """The centre of mass of core, and of core and shell, (2, 3) LPS mm: points that correspond."""
    volume = np.asarray(label.dataobj)
    voxels = np.array([np.argwhere(part).mean(0) for part in (volume == 2, volume > 0)])
    return nib.affines.apply_affine(label.affine, voxels) * [-1, -1, 1]


@pytest.fixture(scope="module")
def folder(ellipsoid_dataset, other_geometry, tmp_path_factory) -> Path:
    """Images, labels and ``pairs.csv``: case_01 onto case_00 as it is, turned, and turned with thick slices."""
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("case_00", "case_01"):
        for kind in ("imagesTr", "labelsTr"):
            (folder / kind).mkdir(exist_ok=True)
            shutil.copy(ellipsoid_dataset / kind / f"{name}.nii.gz", folder / kind)
    image, label = (nib.load(folder / kind / "case_00.nii.gz") for kind in ("imagesTr", "labelsTr"))
    for name, thick in (("turned", False), ("thick", True)):
        write_nifti(folder / "imagesTr" / f"{name}.nii.gz", *other_geometry(np.asarray(image.dataobj), image.affine, thick))
    write_nifti(folder / "labelsTr" / "turned.nii.gz", *other_geometry(np.asarray(label.dataobj), label.affine, False))
    for name in ("case_00", "case_01", "turned"):
        write_particles(folder / f"{name}.particles", middles(nib.load(folder / "labelsTr" / f"{name}.nii.gz")))
    rows = [
        "fixed,moving,fixed_label,moving_label,fixed_points,moving_points",
        "imagesTr/case_00.nii.gz,imagesTr/case_01.nii.gz,labelsTr/case_00.nii.gz,labelsTr/case_01.nii.gz,case_00.particles,case_01.particles",
        "imagesTr/turned.nii.gz,imagesTr/case_01.nii.gz,labelsTr/turned.nii.gz,labelsTr/case_01.nii.gz,turned.particles,case_01.particles",
        "imagesTr/thick.nii.gz,imagesTr/case_01.nii.gz,,labelsTr/case_01.nii.gz,,case_01.particles",
    ]
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def registered(bundle_call, model, folder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("registered")
    options = {"model_dir": model, "output_dir": output, "device": "cpu", "inverse_consistency": "true", "probabilities": "true"}
    bundle_call("run", "register", pairs=folder / "pairs.csv", **options)
    return output


def test_files_lie_flat(registered):
    names = {f"{stem}_{kind}.nii.gz" for stem in STEMS for kind in ("warped", "warped_label", "warped_prob", "ddf")}
    assert {path.name for path in registered.iterdir()} == names | {"metrics.csv", "summary.json"}


@pytest.mark.parametrize(("stem", "fixed"), list(zip(STEMS, ("case_00", "turned", "thick"))))
@pytest.mark.parametrize("kind", ["warped", "warped_label", "warped_prob", "ddf"])
def test_results_lie_on_the_grid_of_the_fixed_image(registered, folder, stem, fixed, kind):
    expected, found = nib.load(folder / "imagesTr" / f"{fixed}.nii.gz"), nib.load(registered / f"{stem}_{kind}.nii.gz")
    assert found.shape[:3] == expected.shape
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)


def test_the_registration_helps(registered, folder):
    fixed, moving = (read(folder / "labelsTr" / f"case_0{k}.nii.gz") for k in (0, 1))
    warped = read(registered / f"{STEMS[0]}_warped_label.nii.gz")
    assert set(np.unique(warped)) == {0, 2, 5}
    assert dice(warped, fixed) > dice(moving, fixed) + 0.1


def test_probabilities(registered):
    soft, label = (read(registered / f"{STEMS[0]}_{kind}.nii.gz") for kind in ("warped_prob", "warped_label"))
    assert soft.shape == (*label.shape, 3)
    assert soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-6)
    assert (np.array([0, 2, 5])[soft.argmax(-1)] == label).mean() > 0.99
    assert 0 < soft[label == 5][:, 2].min() < 0.6  # at the border


def test_shares_of_labels_between_voxels():
    """Each voxel looks half a voxel on, the last one beyond the moving image."""
    label = np.broadcast_to(np.array([0, 2, 5, 5])[:, None, None], (4, 2, 2))
    displacement = np.zeros((4, 2, 2, 3), np.float32)
    displacement[..., 0] = np.array([-0.5, -0.5, -0.5, -1.5])[:, None, None]  # LPS
    pair = RegisteredPair(torch.zeros(1, 3, 4, 2, 2), displacement, np.eye(4), np.eye(4), label, np.eye(4), 0.0)
    soft = pair.warp_soft(label, (0, 2, 5))
    expected = [[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1], [1, 0, 0]]
    np.testing.assert_allclose(soft, np.broadcast_to(np.array(expected)[:, None, None], (4, 2, 2, 3)), atol=1e-6)


def test_probabilities_of_no_label(folder, model, tmp_path):
    table = write(folder / "bare.csv", "fixed,moving\nimagesTr/case_00.nii.gz,imagesTr/case_01.nii.gz\n")
    with pytest.raises(DataError, match="bare.csv: --probabilities true warps labels, and no pair has a moving_label"):
        register_pairs(table, Registrar(None, Plan.load(model / "plan.json")), tmp_path / "out", probabilities="true")
    assert not (tmp_path / "out").exists()


def test_the_same_result_in_another_geometry(registered, back_to_plain):
    plain = read(registered / f"{STEMS[0]}_warped_label.nii.gz")
    assert dice(back_to_plain(read(registered / f"{STEMS[1]}_warped_label.nii.gz"), thick=False), plain) > 0.97
    assert dice(back_to_plain(read(registered / f"{STEMS[2]}_warped_label.nii.gz"), thick=True), plain) > 0.85


@pytest.mark.parametrize("stem", STEMS)
def test_itk_applies_the_written_field_with_the_same_result(registered, folder, stem):
    moving = itk.imread(str(folder / "imagesTr" / "case_01.nii.gz"), itk.F)
    vectors = itk.imread(str(registered / f"{stem}_ddf.nii.gz"))
    memory = itk.array_from_image(vectors).astype(np.float64)
    field = itk.image_view_from_array(memory, ttype=itk.Image[itk.Vector[itk.D, 3], 3])
    field.CopyInformation(vectors)
    transform = itk.DisplacementFieldTransform[itk.D, 3].New()
    transform.SetDisplacementField(field)
    written = itk.imread(str(registered / f"{stem}_warped.nii.gz"), itk.F)
    theirs = itk.array_from_image(itk.resample_image_filter(moving, transform=transform, use_reference_image=True, reference_image=written))
    ours = itk.array_from_image(written)
    assert np.linalg.norm(theirs - ours) / np.linalg.norm(ours) < 0.01


def test_metrics(registered, folder):
    with open(registered / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["moving"], row["fixed"]) for row in rows] == [("case_01", name) for name in ("case_00", "turned", "thick")]
    warped, fixed = read(registered / f"{STEMS[0]}_warped_label.nii.gz"), read(folder / "labelsTr" / "case_00.nii.gz")
    assert float(rows[0]["dice_mean"]) == pytest.approx(dice(warped, fixed), abs=1e-4)
    assert rows[2]["dice_mean"] == ""  # no fixed label
    assert all(float(row[key]) >= 0 for row in rows for key in ("folding_percent", "seconds", "inverse_consistency"))


def test_points(registered, folder):
    with open(registered / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    after, before = ([row[key] for row in rows] for key in ("tre", "tre_before"))
    assert after[2] == before[2] == ""  # no points of the fixed image
    # Both grids begin at one place: laid centre on centre, points lie as far apart as in the world.
    fixed, moving = (read_particles(folder / f"case_0{k}.particles") for k in (0, 1))
    assert float(before[0]) == pytest.approx(np.linalg.norm(fixed - moving, axis=1).mean(), abs=1e-3)
    assert float(before[1]) == pytest.approx(float(before[0]), abs=0.02)  # the same anatomy in another geometry
    assert float(after[0]) < 0.6 * float(before[0])
    assert float(after[1]) == pytest.approx(float(after[0]), abs=0.1)


def test_affine_passes_and_instance_optimisation(bundle_call, model, folder, registered, tmp_path):
    (tmp_path / "one.csv").write_text(
        "fixed,moving,fixed_label,moving_label\n"
        + ",".join(str(folder / k / f"case_0{i}.nii.gz") for k in ("imagesTr", "labelsTr") for i in (0, 1))
    )
    options = {"pairs": tmp_path / "one.csv", "model_dir": model, "output_dir": tmp_path / "out", "device": "cpu"}
    bundle_call("run", "register", **options, iterations=15, affine_passes=1)
    fixed = read(folder / "labelsTr" / "case_00.nii.gz")
    alone, refined = (dice(read(f / f"{STEMS[0]}_warped_label.nii.gz"), fixed) for f in (registered, tmp_path / "out"))
    assert refined > alone - 0.01
    assert not list((tmp_path / "out").glob("*_prob.nii.gz"))  # not asked for


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column 'fixed'"),
        ("fixed,moving\n", "holds no pair"),
        ("fixed,moving,moving_lable\nx.nii.gz,y.nii.gz,z.nii.gz\n", "unknown column 'moving_lable', did you mean 'moving_label'"),
        ("fixed,moving\nx.nii.gz,\n", "line 2 has no moving image"),
    ],
)
def test_faulty_tables(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_pairs(write(tmp_path / "pairs.csv", text))


def test_a_table_in_another_encoding(tmp_path):
    (tmp_path / "pairs.csv").write_bytes("fixed,moving\nä.nii.gz,b.nii.gz\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"pairs\.csv: not a table of text in UTF-8"):
        read_pairs(tmp_path / "pairs.csv")


def test_no_table(tmp_path):
    with pytest.raises(DataError, match="none.csv: no such file"):
        read_pairs(tmp_path / "none.csv")


def test_paths_are_relative_to_the_table_or_absolute(tmp_path):
    ((fixed, moving),) = read_pairs(write(tmp_path / "pairs.csv", f"moving,fixed,moving_label\nsub/m.nii.gz,{tmp_path}/f.nii,l.nii.gz\n"))
    assert (fixed.image, fixed.label, fixed.name) == (tmp_path / "f.nii", None, "f")
    assert (moving.image, moving.label, moving.name) == (tmp_path / "sub" / "m.nii.gz", tmp_path / "l.nii.gz", "m")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("imagesTr/case_00.nii.gz,imagesTr/none.nii.gz,,", "none.nii.gz: missing"),
        ("imagesTr/case_00.nii.gz,imagesTr/case_01.nii.gz,imagesTr/case_00.nii.gz,", "label values must be integers"),
        ("imagesTr/thick.nii.gz,imagesTr/case_01.nii.gz,labelsTr/case_00.nii.gz,", "shape"),
    ],
)
def test_faulty_files(folder, model, row, message):
    table = write(folder / "faulty.csv", f"fixed,moving,fixed_label,moving_label\n{row}\n")
    with pytest.raises(DataError, match=message):
        check_pairs(read_pairs(table), Plan.load(model / "plan.json"))


def test_a_pair_that_occurs_twice(folder, model):
    table = write(folder / "twice.csv", "fixed,moving\n" + 2 * "imagesTr/case_00.nii.gz,imagesTr/case_01.nii.gz\n")
    with pytest.raises(DataError, match="case_01_to_case_00 occurs twice"):
        check_pairs(read_pairs(table), Plan.load(model / "plan.json"))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("none.particles", "none.particles: missing"),
        ("three.particles", r"three.particles: 3 points, but case_00.particles has 2"),
        ("far.particles", "far.particles: the points lie outside their image"),
    ],
)
def test_faulty_points(folder, points, message):
    write_particles(folder / "three.particles", np.zeros((3, 3)))
    write_particles(folder / "far.particles", np.full((2, 3), 500.0))
    row = f"imagesTr/case_00.nii.gz,imagesTr/case_01.nii.gz,case_00.particles,{points}"
    table = write(folder / "faulty.csv", f"fixed,moving,fixed_points,moving_points\n{row}\n")
    with pytest.raises(DataError, match=message):
        check_points(read_pairs(table))


def test_points_of_one_image_are_looked_at(folder):
    row = "imagesTr/case_00.nii.gz,imagesTr/case_01.nii.gz,,none.particles"
    table = write(folder / "faulty.csv", f"fixed,moving,fixed_points,moving_points\n{row}\n")
    with pytest.raises(DataError, match="none.particles: missing"):
        check_points(read_pairs(table))


def test_a_table_with_points_of_one_side(folder):
    table = write(folder / "faulty.csv", "fixed,moving,fixed_points\nimagesTr/case_00.nii.gz,imagesTr/case_01.nii.gz,case_00.particles\n")
    with pytest.raises(DataError, match="faulty.csv: has points of one image of a pair only, in the column 'fixed_points'"):
        read_pairs(table)


def test_an_images_label_is_checked_wherever_it_is_named(folder, model):
    rows = ["case_00,case_01,,", "case_01,thick,labelsTr/turned.nii.gz,"]
    rows = [",".join([*(f"imagesTr/{name}.nii.gz" for name in row.split(",")[:2]), *row.split(",")[2:]]) for row in rows]
    table = write(folder / "chained.csv", "\n".join(["fixed,moving,fixed_label,moving_label", *rows]) + "\n")
    with pytest.raises(DataError, match="turned.nii.gz: (shape|its affine)"):
        check_pairs(read_pairs(table), Plan.load(model / "plan.json"))


@pytest.fixture
def crops(folder, tmp_path) -> tuple[Path, Path]:
    """Two crops of one image, 8 voxels apart, as their headers say."""
    image = nib.load(folder / "imagesTr" / "case_00.nii.gz")
    volume, paths = np.asarray(image.dataobj), (tmp_path / "low.nii.gz", tmp_path / "high.nii.gz")
    for path, begin in zip(paths, (0, 8)):
        affine = image.affine.copy()
        affine[:3, 3] += image.affine[:3, 0] * begin
        write_nifti(path, volume[begin : begin + 22], affine)
    return paths


@pytest.mark.parametrize(("start", "offset"), [("centres", 12.0), ("headers", 0.0)])
def test_where_a_registration_starts(model, crops, start, offset):
    """An untrained network hardly moves anything: the field is what the images' places make it."""
    plan = Plan.load(model / "plan.json")
    pair = Registrar(registration_from_plan(plan), plan, precision="float32", start=start)(*crops)
    assert np.abs(pair.displacement[..., 0]).mean() == pytest.approx(offset, abs=0.3)
    assert np.abs(pair.displacement[..., 1:]).mean() < 0.3
    # the second crop begins where the eighth slice of the first is
    error = np.abs(pair.warp(pair.moving)[9:21] - read(crops[0])[9:21]).mean()
    assert (error < 3) == (start == "headers")


def test_a_start_by_headers_sees_all_of_a_larger_field_of_view(model, folder, tmp_path):
    """Far from the middle of the moving image, which is larger than the network's grid, lies all of the fixed one."""
    image = nib.load(folder / "imagesTr" / "case_00.nii.gz")
    volume, before = np.asarray(image.dataobj), np.array([40, 3, 50])
    wide = np.zeros(before + volume.shape, dtype=np.float32)
    wide[tuple(slice(n, None) for n in before)] = volume
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ before
    write_nifti(tmp_path / "wide.nii.gz", wide, affine)
    plan = Plan.load(model / "plan.json")
    registrar = Registrar(registration_from_plan(plan), plan, precision="float32", start="headers")
    pair = registrar(folder / "imagesTr" / "case_00.nii.gz", tmp_path / "wide.nii.gz")
    assert np.abs(pair.displacement).mean() < 0.3
    assert np.corrcoef(pair.warp(pair.moving).ravel(), volume.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("start", "images"), [("centres", 2), ("headers", 1)])
def test_images_that_the_grid_crops(model, folder, tmp_path, caplog, start, images):
    """Of a start by headers only the fixed one is."""
    plan = replace(Plan.load(model / "plan.json"), size=(16, 32, 32))
    registrar = Registrar(registration_from_plan(plan), plan, start=start)
    register_pairs(write(folder / "cropped.csv", "fixed,moving\nimagesTr/case_00.nii.gz,imagesTr/case_01.nii.gz\n"), registrar, tmp_path)
    assert caplog.text.count(f"{images} image(s) are larger than the network's grid, 16 x 32 x 32") == 1


@pytest.mark.parametrize("start", ["centres", "headers"])
def test_images_whose_headers_place_them_apart(model, folder, tmp_path, start):
    image = nib.load(folder / "imagesTr" / "case_00.nii.gz")
    affine = image.affine.copy()
    affine[0, 3] += 500
    write_nifti(tmp_path / "apart.nii.gz", np.asarray(image.dataobj), affine)
    pairs = [tuple(Case(path.stem, path) for path in (folder / "imagesTr" / "case_00.nii.gz", tmp_path / "apart.nii.gz"))]
    registrar = Registrar(None, Plan.load(model / "plan.json"), start=start)
    if start == "centres":
        registrar.check(pairs)
    else:
        with pytest.raises(DataError, match="apart.nii.gz: its header places it nowhere in .*case_00.nii.gz; --start centres"):
            registrar.check(pairs)


def test_an_optimisation_without_segmentations_says_so(model, caplog):
    Registrar(None, Plan.load(model / "plan.json"), iterations=3)
    assert "no segmentation network: the instance optimisation goes by the images alone" in caplog.text


def test_a_segmentation_network_that_is_not_there(bundle_call, model, folder, tmp_path):
    options = {"pairs": folder / "pairs.csv", "model_dir": model, "output_dir": tmp_path, "network#path": "none.pt"}
    with pytest.raises(RuntimeError) as raised:
        bundle_call("run", "register", **options)
    assert str(raised.value.__cause__).startswith("none.pt: no such weights")


def test_there_and_back_is_the_swapped_pair(model, folder):
    plan, images = Plan.load(model / "plan.json"), [folder / "imagesTr" / f"case_0{k}.nii.gz" for k in (0, 1)]
    registrar = Registrar(load_weights(model / "registration.pt", registration_from_plan(plan)), plan, precision="float32")
    assert torch.equal(registrar(*images, there_and_back=True).backward, registrar(*images[::-1]).ddf)


def test_an_unknown_start(model):
    with pytest.raises(DataError, match="--start must be one of centres, headers, not 'header'"):
        Registrar(None, Plan.load(model / "plan.json"), start="header")


@pytest.mark.parametrize("name", ["iterations", "affine_passes"])
def test_numbers_of_passes_that_are_none(model, name):
    with pytest.raises(DataError, match=rf"--{name} must be a whole number from 0 on, not -1"):
        Registrar(None, Plan.load(model / "plan.json"), **{name: -1})


def test_a_sheared_fixed_image(folder, model):
    image = nib.load(folder / "imagesTr" / "case_00.nii.gz")
    affine = image.affine.copy()
    affine[0, 2] = 0.3
    write_nifti(folder / "sheared.nii.gz", np.asarray(image.dataobj), affine)
    table = write(folder / "sheared.csv", "fixed,moving\nsheared.nii.gz,imagesTr/case_01.nii.gz\n")
    with pytest.raises(DataError, match="sheared.nii.gz: its grid is sheared"):
        check_pairs(read_pairs(table), Plan.load(model / "plan.json"))
