from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer

from deepatlas.atlas import AtlasSegmentation
from tools.bundle.checkpoint import load_weights
from tools.data.checks import DataError
from tools.data.geometry import load_volume, to_plan
from tools.data.plan import Plan


@pytest.fixture(scope="module")
def plan(model) -> Plan:
    """The tiny model's plan."""
    return Plan.load(model / "plan.json")


@pytest.fixture(scope="module")
def files(dataset) -> tuple:
    """Image and label of the atlas."""
    return dataset / "imagesTr" / "case_00.nii.gz", dataset / "labelsTr" / "case_00.nii.gz"


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * ((a > 0) & (b > 0)).sum() / ((a > 0).sum() + (b > 0).sum()))


@pytest.mark.parametrize("iterations", [0, 2])
def test_the_atlas_labels_follow_the_registration(plan, files, model, dataset, iterations):
    network = load_weights(model / "registration.pt", AtlasSegmentation(plan, *files, iterations=iterations, precision="float32"))
    image = to_plan(*load_volume(dataset / "imagesTr" / "case_03.nii.gz"), plan)[0]
    truth = to_plan(*load_volume(dataset / "labelsTr" / "case_03.nii.gz"), plan, is_label=True)[0][0].numpy()
    unmoved = to_plan(*load_volume(files[1]), plan, is_label=True)[0][0].numpy()
    with torch.no_grad():
        logits = network(image[None])
    assert logits.shape == (1, 3, *plan.size)
    assert not logits.requires_grad
    np.testing.assert_allclose(logits.softmax(1), logits.exp(), atol=1e-4)
    assert overlap(logits.argmax(1)[0].numpy(), truth) > overlap(unmoved, truth)


def test_its_weights_are_those_of_the_registration(plan, files, model):
    expected = torch.load(model / "registration.pt", weights_only=True)
    assert AtlasSegmentation(plan, *files).state_dict().keys() == expected.keys()


def test_a_label_of_other_values(plan, files):
    with pytest.raises(DataError, match="label value"):
        AtlasSegmentation(plan, files[0], files[0])


def test_overlay(bundle_call, plan, files, model, dataset, tmp_path):
    names = {"network_def#image": str(files[0]), "network_def#label": str(files[1])}
    options = {"dataset_dir": dataset, "model_dir": model, "output_dir": tmp_path, "device": "cpu"}
    bundle_call("run", "inference", "atlas", **options, **names)
    answer, image = nib.load(tmp_path / "case_03_seg.nii.gz"), nib.load(dataset / "imagesTr" / "case_03.nii.gz")
    assert answer.shape == image.shape
    assert set(np.unique(answer.dataobj)) == set(plan.label_values)


def test_the_refinement_stays_in_float32(bundle, files, model):
    """The networks inside compute in the precision; what calls them does not, or the instance optimisation would as well."""
    names = {"network_def#image": str(files[0]), "network_def#label": str(files[1])}
    made = bundle.workflow("inference", "atlas", kind="infer", model_dir=str(model), precision="bf16", **names)
    assert made.network_def.precision == "bf16"
    assert type(made.inferer) is SimpleInferer
