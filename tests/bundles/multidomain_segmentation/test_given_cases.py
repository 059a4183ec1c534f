"""Training on cases that a program hands over which knows nothing of domains, in the way of MONAI Label."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from multidomain_segmentation.data import DomainRunData, GivenDomains, case_transforms
from multidomain_segmentation.prototypes import DomainFinder, Found
from tools.bundle.training_record import read_training
from tools.data.checks import DataError
from tools.data.decathlon import read_dataset
from tools.data.domain_plan import DomainPlan
from tools.data.files import write_nifti
from tools.data.geometry import load_volume
from tools.data.slices import SliceCase

#: of each value of the union, the value in the domain ``disc``: core and shell are the union's first two
UNION = {0: 0, 1: 2, 2: 5}


@pytest.fixture
def given(domains, tmp_path) -> list[dict[str, str]]:
    """Two cases of ``disc``, labels in the values of the union."""
    result = []
    for case in read_dataset(domains / "disc").cases[:2]:
        volume, affine = load_volume(case.label)
        values = np.select([volume == value for value in UNION.values()], list(UNION))
        write_nifti(tmp_path / "labels" / f"{case.name}.nii.gz", values.astype(np.uint8), affine)
        result.append({"image": str(case.image), "label": str(tmp_path / "labels" / f"{case.name}.nii.gz")})
    return result


def names(plan: DomainPlan, default: str | None = None) -> GivenDomains:
    return GivenDomains(plan, lambda image, among: Found("disc", 0.5, 1.0, 0.9), default)


def test_a_domain_is_found_and_the_unions_labels_are_read(model, given, domains):
    plan = DomainPlan.load(model / "plan.json")
    case, _ = names(plan)(given)
    assert case["domain"] == "disc"
    read = case_transforms(plan)({**case, "image_meta": "of the program"})
    original = str(read_dataset(domains / "disc").cases[0].label)
    assert torch.equal(read["label"], case_transforms(plan)({"image": case["image"], "label": original, "domain": "disc"})["label"])


def test_the_nearest_domain_is_found_among_those_that_have_the_values(model, given, domains, tmp_path):
    """An image of ``square``, whose label shows the core that only ``disc`` has; one that shows the shell, which both have; one without."""
    plan, finder = DomainPlan.load(model / "plan.json"), DomainFinder(DomainPlan.load(model / "plan.json"), model, force=True)
    image = str(read_dataset(domains / "square").cases[0].image)
    values, affine = load_volume(given[0]["label"])
    write_nifti(tmp_path / "shell.nii.gz", np.where(values == 2, 2, 0).astype(np.uint8), affine)
    labels = {"disc": given[0]["label"], "square": str(tmp_path / "shell.nii.gz")}
    found = GivenDomains(plan, finder)([*({"image": image, "label": label} for label in labels.values()), {"image": image}])
    assert [case["domain"] for case in found] == ["disc", "square", "square"]


def test_a_label_of_no_domain_is_refused_by_the_nearest(model, given, tmp_path):
    plan = DomainPlan.load(model / "plan.json")
    values, affine = load_volume(given[0]["label"])
    write_nifti(tmp_path / "other.nii.gz", np.where(values == 2, 9, 0).astype(np.uint8), affine)
    (case,) = GivenDomains(plan, DomainFinder(plan, model, force=True))([{**given[0], "label": str(tmp_path / "other.nii.gz")}])
    with pytest.raises(DataError, match="other.nii.gz: label value 9 is none of the domain 'disc'"):
        SliceCase(plan)(case)


def test_a_named_case_stays_and_a_default_holds_for_the_others(model, given):
    plan = DomainPlan.load(model / "plan.json")
    named = {**given[0], "domain": "disc"}
    assert names(plan, "square")([named, given[1]]) == [named, {**given[1], "domain": "square", "values": (0, 2)}]


def test_a_label_of_another_domain(model, given):
    plan = DomainPlan.load(model / "plan.json")
    (case,) = names(plan, "square")(given[:1])
    with pytest.raises(DataError, match="label value 1 is none of the domain 'square'"):
        SliceCase(plan)(case)


def test_only_the_domain_that_occurs_learns(bundle, bundle_call, model, tiny, given, tmp_path):
    root = tmp_path / "multidomain_segmentation"
    shutil.copytree(bundle.root / "configs", root / "configs")
    shutil.copytree(model, root / "models", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))
    label = {"bundle_root": root, "device": "cpu", "train#trainer#max_epochs": 1, "train#dataset#data": given, "validate#dataset#data": []}
    bundle_call("", "train", **{**tiny, "epoch_length": 3, "slices_per_domain": 4, **label})
    changed = changed_weights(model, root / "models", "model.pt")
    assert changed
    assert all("disc" in key for key in changed)
    assert changed_domains(model, root / "models") == {"disc"}
    assert not changed_weights(model, root / "models", "anatomical_prior.pt")
    record = read_training(root / "models")
    assert (sum(record["steps"].values()), record["steps_before"]) == (3, read_training(model)["steps"])


def changed_weights(before: Path, after: Path, name: str) -> set[str]:
    first, second = (torch.load(folder / name, weights_only=True) for folder in (before, after))
    assert first.keys() == second.keys()
    return {key for key in first if not torch.equal(first[key], second[key])}


def changed_domains(before: Path, after: Path) -> set[str]:
    first, second = (json.loads((folder / "domains.json").read_text())["domains"] for folder in (before, after))
    assert first.keys() == second.keys()
    return {name for name in first if first[name] != second[name]}


def test_a_target_that_the_model_does_not_know(model, given):
    with pytest.raises(DataError, match="unknown domain 'disk', the nearest is 'disc'"):
        DomainRunData(model_dir=model, target="disk").check(given=given)
