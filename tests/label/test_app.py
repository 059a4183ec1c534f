from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from random_models import DEEPATLAS, LABELS, MULTIDOMAIN, SHAPES, random_deepatlas, random_multidomain, random_shapes

from tools.bundle.training_record import write_training
from tools.commands.label import label
from tools.data.checks import DataError
from tools.data.files import write_nifti
from tools.label.app import add_atlas, add_bundle, copy_app

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


@pytest.fixture
def environment(tmp_path) -> Path:
    """As much of MONAI Label's environment as an app is copied from."""
    folder = tmp_path / "environment"
    (folder / "monailabel" / "sample-apps" / "monaibundle").mkdir(parents=True)
    (folder / "monailabel" / "sample-apps" / "monaibundle" / "main.py").write_text("app = 1\n")
    return folder


def test_the_app_is_copied_once(environment, tmp_path):
    copy_app(environment, tmp_path / "app")
    (tmp_path / "app" / "main.py").write_text("app = 2\n")
    copy_app(environment, tmp_path / "app")
    assert (tmp_path / "app" / "main.py").read_text() == "app = 2\n"


def test_an_app_half_copied_is_none(environment, tmp_path, monkeypatch):
    def killed(source: Path, to: Path, **options: bool) -> None:
        shutil.copyfile(source / "main.py", to / "main.py")
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copytree", killed)
    with pytest.raises(KeyboardInterrupt):
        copy_app(environment, tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_a_folder_of_something_else_is_left_alone(environment, tmp_path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "notes.txt").touch()
    with pytest.raises(DataError, match="something else than an app"):
        copy_app(environment, tmp_path / "app")


def test_a_model_that_has_learnt_stays(tmp_path):
    assert add_bundle(tmp_path, BUNDLES / "deepatlas") == "deepatlas"
    model = tmp_path / "model" / "deepatlas"
    assert (model / "deepatlas_0_1_0" / "networks.py").is_file()
    (model / "models" / "model.pt").write_bytes(b"learnt")
    add_bundle(tmp_path, BUNDLES / "deepatlas")
    assert (model / "models" / "model.pt").read_bytes() == b"learnt"
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["deepatlas"]


def test_a_bundle_without_weights(tmp_path):
    bundle = tmp_path / "bundles" / "deepatlas"
    shutil.copytree(BUNDLES / "deepatlas", bundle, ignore=shutil.ignore_patterns("*.pt"))
    with pytest.raises(DataError, match=r"no models/model\.pt"):
        add_bundle(tmp_path, bundle)


@pytest.mark.parametrize(
    ("bundle", "make", "labels", "size"),
    [
        (DEEPATLAS, random_deepatlas, LABELS, [32, 32, 32]),
        (MULTIDOMAIN, random_multidomain, {0: "background", 1: "core", 2: "shell", 3: "ring"}, None),
        (SHAPES, random_shapes, LABELS, [32, 48, 32]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_model_of_ones_own(tmp_path, bundle, make, labels, size):
    trained = make(tmp_path)
    write_training(trained, {"seed": 0})
    (trained / "checkpoints").mkdir()
    if bundle is MULTIDOMAIN:
        (trained / "domains.json").write_text("{}")
    assert add_bundle(tmp_path / "app", bundle.root, trained) == bundle.name
    model = tmp_path / "app" / "model" / bundle.name
    expected = {path.name for path in trained.iterdir() if path.is_file()}
    assert {path.name for path in (model / "models").iterdir()} == expected
    assert all((model / "models" / name).read_bytes() == (trained / name).read_bytes() for name in expected)
    metadata = json.loads((model / "configs" / "metadata.json").read_text())
    pred = metadata["network_data_format"]["outputs"]["pred"]
    assert pred["channel_def"] == {str(value): name for value, name in labels.items()}
    assert pred["num_channels"] == len(labels)
    shape = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    assert shape == (size or bundle.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"])
    assert "eval_metrics" not in metadata
    assert "hippocampus" not in json.dumps({key: value for key, value in metadata.items() if key != "changelog"}).lower()


def test_a_model_of_ones_own_replaces_nothing(tmp_path):
    add_bundle(tmp_path, DEEPATLAS.root)
    model = tmp_path / "model" / "deepatlas" / "models" / "model.pt"
    before = model.read_bytes()
    (tmp_path / "trained").mkdir()
    with pytest.raises(DataError, match=r"model/deepatlas: is there, with what it has learnt"):
        add_bundle(tmp_path, DEEPATLAS.root, random_deepatlas(tmp_path / "trained"))
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("bundle", "kept", "fault"),
    [
        (DEEPATLAS, "model.pt", r"plan\.json: missing"),
        (DEEPATLAS, "plan.json", r"model\.pt: no such weights"),
        (MULTIDOMAIN, "", r"domains\.json: missing"),
        (SHAPES, "", r"the network cannot be built \(KeyError: 'shape'\)"),
    ],
)
def test_a_model_that_is_none_of_this_bundle(tmp_path, bundle, kept, fault):
    trained = random_deepatlas(tmp_path)
    for path in trained.glob("*.*"):
        if kept and path.name != kept:
            path.unlink()
    with pytest.raises(DataError, match=fault):
        add_bundle(tmp_path / "app", bundle.root, trained)
    assert not list((tmp_path / "app" / "model").iterdir())


def test_a_training_that_has_not_ended(tmp_path):
    with pytest.raises(DataError, match=r"domains\.json: missing; has the training ended"):
        add_bundle(tmp_path / "app", MULTIDOMAIN.root, random_multidomain(tmp_path))


def test_a_shape_model_without_a_segmentation(tmp_path):
    plan = json.loads((random_shapes(tmp_path) / "plan.json").read_text())
    plan["extra"]["shape"]["segmentation"] = False
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(DataError, match="this model has learnt points alone, no segmentation"):
        add_bundle(tmp_path / "app", SHAPES.root, tmp_path)


def test_whose_model_it_is_must_be_said(tmp_path):
    with pytest.raises(DataError, match="say of which one bundle it is a model"):
        label(str(tmp_path), model_dir=str(tmp_path), bundles="deepatlas,progressive_deepssm")


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"model_dir": "OUT", "bundles": "deepatlas"}, "OUT: no such folder"),
        ({"atlas": "a.nii.gz,b.nii.gz"}, r"a\.nii\.gz: missing"),
        ({"bundles": "deepatlass"}, "deepatlass: no bundle, folder or archive of this name; the nearest is deepatlas"),
    ],
)
def test_what_is_missing_is_missed_before_anything_is_installed(tmp_path, options, fault):
    with pytest.raises(DataError, match=fault):
        label(str(tmp_path), **options)


def test_an_atlas_is_in_the_config_that_is_read(tmp_path):
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    label = np.zeros((5, 6, 7), np.uint8)
    label[2, 3, 4] = 2
    write_nifti(tmp_path / "some.nii", np.random.default_rng(0).random((5, 6, 7)).astype(np.float32), affine)
    write_nifti(tmp_path / "label.nii.gz", label, affine)
    assert add_atlas(tmp_path, BUNDLES / "deepatlas", tmp_path / "some.nii", tmp_path / "label.nii.gz") == "deepatlas_atlas"
    model = tmp_path / "model" / "deepatlas_atlas"
    inference = json.loads((model / "configs" / "inference.json").read_text())
    assert inference["network_def"]["_target_"] == "deepatlas_0_1_0.atlas.AtlasSegmentation"
    assert inference["handlers"][0]["load_path"] == "$@model_dir + '/model.pt'"
    assert (model / "models" / "model.pt").read_bytes() == (BUNDLES / "deepatlas" / "models" / "registration.pt").read_bytes()
    assert not (model / "configs" / "train.json").exists()
    read = nib.load(model / "models" / "atlas_label.nii.gz")
    assert np.array_equal(read.dataobj, label)
    assert np.array_equal(read.affine, affine)


def test_an_atlas_of_the_served_model(tmp_path):
    """Of other label values than the bundle's, and one whose label is not the model's leaves the earlier atlas."""
    (tmp_path / "trained").mkdir()
    trained = random_deepatlas(tmp_path / "trained")
    add_bundle(tmp_path, DEEPATLAS.root, trained)
    label = np.zeros((5, 6, 7), np.uint8)
    label[2, 3, 4] = 5
    image = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    write_nifti(tmp_path / "image.nii.gz", image, np.eye(4))
    write_nifti(tmp_path / "label.nii.gz", label, np.eye(4))
    add_atlas(tmp_path, DEEPATLAS.root, tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    weights = tmp_path / "model" / "deepatlas_atlas" / "models" / "model.pt"
    assert weights.read_bytes() == (trained / "registration.pt").read_bytes()
    write_nifti(tmp_path / "label.nii.gz", label + 1, np.eye(4))
    with pytest.raises(DataError, match=r"label\.nii\.gz: .*1, 6"):
        add_atlas(tmp_path, DEEPATLAS.root, tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    assert weights.is_file()


def test_an_atlas_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"none\.nii\.gz"):
        add_atlas(tmp_path, BUNDLES / "deepatlas", tmp_path / "none.nii.gz", tmp_path / "none.nii.gz")


@pytest.mark.parametrize("bundle", sorted(path.name for path in BUNDLES.iterdir() if (path / "models" / "model.pt").is_file()))
def test_model_pt_has_the_shortest_name(bundle):
    """MONAI Label offers a bundle's weights shortest name first, those of one length in any order; the first is what a client takes."""
    others = {path.name for path in (BUNDLES / bundle / "models").glob("*.pt")} - {"model.pt"}
    assert all(len(name) > len("model.pt") for name in others)
