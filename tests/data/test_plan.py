from __future__ import annotations

import dataclasses
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from tools.data.checks import DataError
from tools.data.decathlon import read_dataset
from tools.data.files import write_nifti
from tools.data.plan import Plan, make_plan

LABELS = {0: "background", 1: "left", 2: "right"}


@pytest.fixture
def dataset(tiny_dataset):
    return read_dataset(tiny_dataset)


def test_plan_of_tiny_dataset(dataset):
    # largest case 20 x 23 x 18 voxels of 1 mm
    assert make_plan(dataset) == Plan(labels=LABELS, spacing=(1, 1, 1), size=(32, 32, 32))


def test_spacing_is_the_median_per_axis_after_reorientation(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "b", "1": "x"}, "training": [f"{k}.nii" for k in range(3)]}))
    # stored as (z, x, y), so world spacing (x, y, z) = (1, 2, k + 2) and extents (10, 40, 30 (k + 2)) mm
    for k in range(3):
        affine = np.array([[0, -1, 0, 0], [0, 0, 2, 0], [k + 2, 0, 0, 0], [0, 0, 0, 1.0]])
        write_nifti(tmp_path / f"{k}.nii", np.random.default_rng(k).random((30, 10, 20)), affine)
    dataset = read_dataset(tmp_path)
    # 30 * 4 mm / 3 mm = 40 voxels along z
    assert make_plan(dataset) == Plan(labels={0: "b", 1: "x"}, spacing=(1, 2, 3), size=(16, 32, 48))
    assert make_plan(dataset, orientation="SAR").size == (48, 32, 16)
    # at most 32 voxels along z: 120 mm / 32
    assert make_plan(dataset, max_size=32) == Plan(labels={0: "b", 1: "x"}, spacing=(1, 2, 3.75), size=(16, 32, 32))
    assert make_plan(dataset, max_size=32, spacing=[1, 2, 3]).size == (16, 32, 32)


def test_overrides(dataset):
    plan = make_plan(
        dataset, spacing=2, size=[16, 32, 48], orientation="lps", intensity={"lower_percentile": 1}, extra={"pca": 4}, labels=None
    )
    assert plan.spacing == (2.0, 2.0, 2.0)
    assert plan.size == (16, 32, 48)
    assert plan.orientation == "LPS"
    assert plan.labels == LABELS
    assert plan.intensity == {"lower_percentile": 1.0, "upper_percentile": 99.5}
    assert plan.extra == {"pca": 4}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"spacin": 1}, "unknown plan override 'spacin', the nearest is 'spacing'"),
        ({"intensity": {"lower": 1}}, "unknown intensity key 'lower', the nearest is 'lower_percentile'"),
        ({"size": 40}, "multiples of 16"),
        ({"size": (32, 32)}, "one number or three"),
        ({"size": (32, 32.5, 32)}, "whole numbers"),
        ({"spacing": 0}, "spacing must hold positive"),
        ({"spacing": "x"}, "spacing must be one number or three"),
        ({"orientation": "RAR"}, "orientation"),
        ({"orientation": "RLA"}, "orientation"),
        ({"intensity": {"lower_percentile": 100}}, "percentiles"),
        ({"labels": {1: "x"}}, "background"),
        ({"max_size": 8}, "max_size"),
    ],
)
def test_invalid_override(dataset, overrides, message):
    with pytest.raises(DataError, match=message):
        make_plan(dataset, **overrides)


def test_json_round_trip(dataset, tmp_path):
    plan = make_plan(dataset, extra={"domains": ["a", "b"], "modes": {"4": 0.5}})
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert json.loads((tmp_path / "plan.json").read_text())["labels"] == {"0": "background", "1": "left", "2": "right"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "missing"),
        ("{", "JSON"),
        ("{}", "not a plan"),
        ('{"labels": {"0": "b", "1": "x"}, "sizes": 3}', "'sizes', the nearest is 'size'"),
        ('{"labels": {"0": "b", "1": "x"}, "version": 99}', "version 99"),
        ('{"labels": {"0": "b", "x": "1"}}', "x"),
    ],
)
def test_unreadable_plan(tmp_path, text, message):
    if text is not None:
        (tmp_path / "plan.json").write_text(text)
    with pytest.raises(DataError, match=message):
        Plan.load(tmp_path / "plan.json")


def test_missing_image(dataset):
    dataset.cases[0].image.unlink()
    with pytest.raises(DataError, match=r"case_00\.nii\.gz: missing"):
        make_plan(dataset)


def test_no_cases(dataset):
    with pytest.raises(DataError, match="no training case"):
        make_plan(dataclasses.replace(dataset, cases=()))


@pytest.mark.parametrize("labels", [{0: "b", 1: "x", 2: "y"}, {0: "b", 7: "y", 3: "x"}])
def test_channels_and_values(labels):
    plan = Plan(labels=labels)
    values = torch.tensor([[0, max(labels)], [min(set(labels) - {0}), 0]])
    assert plan.num_classes == 3
    assert plan.label_values == tuple(sorted(labels))
    assert plan.to_channels(values).tolist() == [[0, 2], [1, 0]]
    assert torch.equal(plan.to_values(plan.to_channels(values)), values)


def test_header_noise_does_not_enter_the_plan(dataset):
    for case in dataset.cases:
        volume = nib.load(case.image)
        write_nifti(case.image, np.asarray(volume.dataobj), np.diag([1.00000012, 0.99999994, 1, 1]))
    assert make_plan(dataset).spacing == (1.0, 1.0, 1.0)
