"""The command line: misspelled keys, bad data, and the choice of domains."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from multidomain_segmentation.data import DomainRunData
from tools.bundle.errors import cause
from tools.bundle.overrides import OverrideError
from tools.data.checks import DataError

QUICK = {"epochs": 1, "epoch_length": 2, "slices_per_domain": 2, "validation_interval": 1}


@pytest.fixture(autouse=True)
def _excepthook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def refusal(train, output: Path, *overlays: str, **overrides) -> DataError:
    """The bad input that ends a training, which has written nothing."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        train(output, *overlays, **{**QUICK, **overrides})
    found = cause(caught.value)
    assert found is not None, caught.value
    assert "\n" not in str(found)
    assert not output.exists()
    return found


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("domain", "domains"),
        ("contrastive_wight", "contrastive_weight"),
        ("learning_rat", "learning_rate"),
        ("train#trainer#max_epoch", "train#trainer#max_epochs"),
    ],
)
def test_a_misspelled_override_names_the_nearest_key(train, tmp_path, key, nearest):
    found = refusal(train, tmp_path / "out", **{key: 1})
    assert isinstance(found, OverrideError)
    assert str(found) == f"unknown override --{key}: did you mean {nearest}?"


@pytest.mark.parametrize(
    ("overlays", "overrides", "message"),
    [
        ([], {"dataset_dir": ""}, "give --dataset_dir"),
        ([], {"domains": "disk"}, "unknown domain (in "),
        ([], {"label_limit": 50}, "label_limit is 50"),
        ([], {"label_limit": {"square": 50}}, "square/dataset.json: label_limit is 50"),
        ([], {"label_limit": {"disk": 1}}, "unknown domain in label_limit: 'disk', the nearest is 'disc'"),
        ([], {"resume": "maybe"}, "expected true or false"),
        ([], {"encoder": "resnet17"}, "encoder must be 'plain' or one of"),
        ([], {"encoder": "resnet18", "weights": "missing.pth"}, "missing.pth: no such weights"),
        ([], {"weights": "missing.pth"}, "weights are for a ResNet encoder"),
        ([], {"skips": "long"}, "skips must be 'plain' or 'attention', not 'long'"),
        (["experiments/unlabelled"], {}, "learns from unlabelled images, but every training case of ['disc', 'square'] has a label"),
        (["experiments/individual"], {}, "one network for one domain: give --domains NAME, one of ['disc', 'square']"),
        (["experiments/transfer", "experiments/unlabelled"], {"target": "disc", "label_limit": 1}, "over transfer lay unlabelled_transfer"),
        (["experiments/transfer"], {}, "needs a target: give --target NAME"),
        (["experiments/transfer"], {"target": "disk"}, "'disk', the nearest is 'disc'"),
        ([], {"target": "disk"}, "unknown target (in "),
        ([], {"target": "disc"}, "--target disc, but no stage learns from it alone: lay the overlay transfer over train.json"),
        ([], {"add_domains": "true"}, "lay the overlay add_domain over train.json"),
        ([], {"target": 2019}, "'2019', the nearest is"),
        ([], {"domains": 2019}, "'2019', the nearest is"),
        ([], {"label_limit": {2019: 1}}, "unknown domain in label_limit: '2019'"),
        ([], {"slice_plans": "disc=2"}, "slice_plans must map names of domains to fields of their plans"),
        ([], {"slice_plans": {2019: {"slice_axis": 0}}}, "unknown domain in slice_plans: '2019'"),
        ([], {"stages": "network"}, "stages must be a list of dictionaries, not 'network'"),
        ([], {"stages": [{"name": "n", "shares": 1}]}, "unknown key of the stage 'n': 'shares', the nearest is 'share'"),
        ([], {"embedding": -3}, "embedding must be a whole number from 0 on, not -3"),
        (
            [],
            {"embedding": 0, "prior_weight": 0},
            "contrastive_weight needs embeddings: give --embedding from 1 on, or --contrastive_weight 0",
        ),
        ([], {"foreground_share": 70}, "--foreground_share must be a number from 0 to 1, not 70"),
        ([], {"channels": 32}, "channels must be a list of positive whole numbers"),
        ([], {"channels": [32]}, "channels need at least two levels"),
        (["experiments/transfer"], {"target": "disc", "domains": "disc"}, "needs other domains than 'disc'"),
    ],
)
def test_a_choice_that_cannot_be(train, tmp_path, overlays, overrides, message):
    assert message in str(refusal(train, tmp_path / "out", *overlays, **overrides))


def faulty(source: Path, folder: Path, fault: str) -> Path:
    """A copy of the data sets, the second with a fault."""
    shutil.copytree(source, folder)
    path = folder / "square" / "dataset.json"
    content = json.loads(path.read_text())
    if fault == "no cases":
        content["training"] = []
    elif fault == "no labels":
        content["training"] = [{"image": entry["image"]} for entry in content["training"]]
    elif fault == "unknown label value":
        content["labels"] = {"0": "background", "7": "shell"}
    elif fault == "two of one name":
        content["domain"] = "disc"
    elif fault == "a name with a full stop":
        content["domain"] = "sq.a"
    elif fault == "truncated image":
        image = folder / "square" / "imagesTr" / "case_01.nii.gz"
        image.write_bytes(image.read_bytes()[:2000])
    path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("no cases", "the domain 'square' has no training case"),
        ("no labels", "too few labelled cases: 0, at least 1 are needed (domain 'square')"),
        ("unknown label value", "label value 1 not in the data set's [0, 7] (domain 'square')"),
        ("two of one name", "two domains are named 'disc'"),
        ("a name with a full stop", "square/dataset.json: 'sq.a' cannot be the name of a domain"),
        ("truncated image", "case_01.nii.gz: truncated"),
    ],
)
def test_bad_data_stops_before_anything_is_written(train, domains, tmp_path, fault, message):
    assert message in str(refusal(train, tmp_path / "out", dataset_dir=faulty(domains, tmp_path / "data", fault)))


def test_one_domain_alone(train, tmp_path):
    train(tmp_path / "out", "experiments/individual", **QUICK, domains="square")
    assert list(json.loads((tmp_path / "out" / "plan.json").read_text())["domains"]) == ["square"]
    assert not (tmp_path / "out" / "anatomical_prior.pt").exists()


@pytest.mark.parametrize(("overlays", "options"), [((), {}), (("experiments/unlabelled_transfer",), {"label_limit": 1})])
def test_transfer_makes_a_model_of_its_target(train, tmp_path, overlays, options):
    train(tmp_path / "out", "experiments/transfer", *overlays, **{**QUICK, "epoch_length": 4, **options}, target="disc")
    assert list(json.loads((tmp_path / "out" / "domains.json").read_text())["domains"]) == ["disc"]


def test_images_that_a_chosen_domain_does_not_list_are_told_of(domains, tmp_path, caplog):
    shutil.copytree(domains, tmp_path / "data")
    for name in ("disc", "square"):
        path = tmp_path / "data" / name / "dataset.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({**content, "training": content["training"][:5]}))
    DomainRunData(tmp_path / "data", tmp_path / "out", domains="square").save()
    (record,) = caplog.records
    assert record.message.startswith(f"{path}: images in imagesTr that it does not list are left out: 1, the first of them case_05.nii.gz")


def test_images_of_a_domain_that_is_not_chosen_are_listed(domains, tmp_path, caplog):
    """One folder holds several domains."""
    path = Path(shutil.copytree(domains / "disc", tmp_path / "data")) / "dataset.json"
    content = json.loads(path.read_text())
    entries = [{**entry, "domain": ("near", "far")[k % 2]} for k, entry in enumerate(content["training"])]
    path.write_text(json.dumps({**content, "training": entries}))
    DomainRunData(path.parent, tmp_path / "out", domains="far").save()
    assert not caplog.records
