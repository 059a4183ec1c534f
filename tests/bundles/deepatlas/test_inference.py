from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from deepatlas.evaluation import segment
from deepatlas.networks import segmentation_from_plan
from tools.bundle.checkpoint import load_weights
from tools.bundle.errors import cause
from tools.data.checks import DataError
from tools.data.files import write_nifti
from tools.data.plan import Plan


def dice(a: np.ndarray, b: np.ndarray, value: int) -> float:
    return float(2 * ((a == value) & (b == value)).sum() / ((a == value).sum() + (b == value).sum()))


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def infer(call, model, images, output, **overrides) -> Path:
    call("run", "inference", dataset_dir=images, model_dir=model, output_dir=output, device="cpu", **overrides)
    return output


@pytest.fixture(scope="module")
def segmented(bundle_call, model, other_geometry, ellipsoid_dataset, tmp_path_factory) -> Path:
    """Segmentations of ``case_00`` as it is (``plain``), turned and permuted (``turned``) and resampled as well (``thick``)."""
    images = tmp_path_factory.mktemp("images")
    image = nib.load(ellipsoid_dataset / "imagesTr" / "case_00.nii.gz")
    volume = np.asarray(image.dataobj)
    write_nifti(images / "plain.nii.gz", volume, image.affine)
    for name, thick in (("turned", False), ("thick", True)):
        write_nifti(images / f"{name}.nii.gz", *other_geometry(volume, image.affine, thick))
    output = infer(bundle_call, model, images, tmp_path_factory.mktemp("segmented"), probabilities="true", precision="float32")
    nib.save(nib.load(images / "turned.nii.gz"), output / "input.nii.gz")
    return output


def test_files_lie_flat(segmented):
    names = {f"{case}_{kind}.nii.gz" for case in ("plain", "turned", "thick") for kind in ("seg", "prob")}
    assert {path.name for path in segmented.iterdir()} == names | {"input.nii.gz"}


def test_label_values_are_the_data_sets(segmented):
    assert set(np.unique(read(segmented / "plain_seg.nii.gz"))) == {0, 2, 5}
    assert read(segmented / "plain_seg.nii.gz").dtype == np.uint8


def test_results_lie_on_the_grid_of_the_image(segmented):
    image, result = nib.load(segmented / "input.nii.gz"), nib.load(segmented / "turned_seg.nii.gz")
    assert result.shape == image.shape
    np.testing.assert_allclose(result.affine, image.affine, atol=1e-5)


def test_probabilities(segmented):
    soft, label = read(segmented / "plain_prob.nii.gz"), read(segmented / "plain_seg.nii.gz")
    assert soft.shape == (*label.shape, 3)
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-3)
    assert (np.array([0, 2, 5])[soft.argmax(-1)] == label).all()


def test_the_truth_is_found(segmented, ellipsoid_dataset):
    truth = read(ellipsoid_dataset / "labelsTr" / "case_00.nii.gz")
    assert dice(read(segmented / "plain_seg.nii.gz"), truth, 5) > 0.75


def test_an_oblique_permuted_image_gives_the_same_result(segmented, back_to_plain):
    plain, turned = read(segmented / "plain_seg.nii.gz"), back_to_plain(read(segmented / "turned_seg.nii.gz"), thick=False)
    assert plain.shape == turned.shape
    assert (plain != turned).mean() < 1e-3


@pytest.mark.parametrize(("value", "least"), [(2, 0.85), (5, 0.9)])  # the core is four thick slices high
def test_an_anisotropic_image_gives_the_same_result(segmented, back_to_plain, value, least):
    plain, thick = read(segmented / "plain_seg.nii.gz"), back_to_plain(read(segmented / "thick_seg.nii.gz"), thick=True)
    assert plain.shape == thick.shape
    assert dice(plain, thick, value) > least


@pytest.fixture(scope="module")
def halved(bundle_call, model, segmented, ellipsoid_dataset, tmp_path_factory) -> Path:
    """Segmentation of ``case_00`` in bf16."""
    images, output = tmp_path_factory.mktemp("image"), tmp_path_factory.mktemp("halved")
    shutil.copy(ellipsoid_dataset / "imagesTr" / "case_00.nii.gz", images / "plain.nii.gz")
    return infer(bundle_call, model, images, output, probabilities="true", precision="bf16")


def test_precision(segmented, halved):
    full, half = (read(folder / "plain_prob.nii.gz") for folder in (segmented, halved))
    assert 1e-4 < np.abs(full - half).max() < 0.2
    np.testing.assert_allclose(half.sum(-1), 1, atol=1e-3)  # the softmax is float32's


@pytest.mark.parametrize(("precision", "folder"), [("float32", "segmented"), ("bf16", "halved")])
def test_the_evaluation_segments_alike(request, model, ellipsoid_dataset, precision, folder):
    plan = Plan.load(model / "plan.json")
    network = load_weights(model / "model.pt", segmentation_from_plan(plan))
    result = segment(network, ellipsoid_dataset / "imagesTr" / "case_00.nii.gz", plan, torch.device("cpu"), precision)
    assert (result != read(request.getfixturevalue(folder) / "plain_seg.nii.gz")).mean() < 1e-3


def test_inference_and_evaluation_have_one_default(bundle):
    """What is evaluated is what inference answers: a processor may compute in bf16 unless it is told."""
    evaluation, inference = (ConfigParser.load_config_files(bundle.files(*names)) for names in (("train", "evaluate"), ("inference",)))
    assert evaluation["registrar"]["precision"] == inference["inferer"]["precision"] == "@precision"
    assert evaluation["precision"] == inference["precision"]


def test_a_precision_that_is_none(bundle_call, model, ellipsoid_dataset, tmp_path):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        infer(bundle_call, model, ellipsoid_dataset / "imagesTr", tmp_path / "out", precision="half")
    assert "precision must be 'auto' or one of ['bf16', 'float32', 'fp16'], not 'half'" in str(cause(caught.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["missing", "truncated"])
def test_unfit_weights_stop_before_anything_is_written(bundle_call, model, ellipsoid_dataset, tmp_path, fault):
    shutil.copytree(model, tmp_path / "model")
    weights = tmp_path / "model" / "model.pt"
    if fault == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        infer(bundle_call, tmp_path / "model", ellipsoid_dataset / "imagesTr", tmp_path / "out")
    assert "model.pt: " in str(cause(caught.value))
    assert not (tmp_path / "out").exists()


def test_a_broken_image_stops_before_anything_is_written(bundle_call, model, ellipsoid_dataset, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    content = (ellipsoid_dataset / "imagesTr" / "case_00.nii.gz").read_bytes()
    (images / "a.nii.gz").write_bytes(content)
    (images / "b.nii.gz").write_bytes(content[:5000])
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        infer(bundle_call, model, images, tmp_path / "out")
    assert isinstance(cause(caught.value), DataError)
    assert "b.nii.gz: truncated" in str(cause(caught.value))
    assert not (tmp_path / "out").exists()
