"""A further domain for a trained model, and other ways to go on from one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from multidomain_segmentation.data import DomainRunData
from multidomain_segmentation.networks import network_from_plan
from multidomain_segmentation.prototypes import keep_away, load_prototypes
from tools.bundle.checkpoint import load_weights, save_weights
from tools.bundle.errors import cause
from tools.bundle.training_record import read_training
from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan

SHORT = {"epochs": 2, "epoch_length": 8, "slices_per_domain": 4, "validation_interval": 2, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def added(train, model, third, tmp_path_factory) -> Path:
    """Folder of the model with the domain ``bars`` added."""
    return train(tmp_path_factory.mktemp("added"), "experiments/add_domain", dataset_dir=third, model_dir=model, **SHORT)


def network(folder: Path):
    plan = DomainPlan.load(folder / "plan.json")
    return load_weights(folder / "model.pt", network_from_plan(plan))


def test_only_the_new_domain_has_new_weights(added, model):
    before, after = (torch.load(folder / "model.pt", weights_only=True) for folder in (model, added))
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert {key for key in after if key not in before} == {key for key in after if ".bars." in key}


@pytest.mark.parametrize("name", ["disc", "square"])
def test_old_predictions_are_bit_identical(added, model, name):
    images = torch.rand(3, 1, 40, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(added).predict(images, name), network(model).predict(images, name))


def test_the_new_domain_is_learnt(added, third, make_volume):
    image, label = make_volume("bars", 9)
    image = torch.from_numpy(image)[:, None]
    image = ((image - image.min()) / (image.max() - image.min())).float()
    with torch.no_grad():
        pred = network(added).predict(image, "bars").argmax(1)
    truth = torch.from_numpy(label) == 3
    assert float(2 * (pred.bool() & truth).sum() / (pred.sum() + truth.sum())) > 0.5


def test_plan_splits_and_prototypes_hold_all_domains(added):
    for name in ("plan.json", "splits.json", "domains.json"):
        assert list(json.loads((added / name).read_text())["domains"]) == ["disc", "square", "bars"]


def test_the_steps_of_the_model_are_those_before(added, model):
    assert read_training(added)["steps"] == {"network": 16, "prior": 0}
    assert read_training(added)["steps_before"] == read_training(model)["steps"]


def test_known_domains_keep_away_from_the_new_one(added, model):
    before, after = (load_prototypes(folder / "domains.json") for folder in (model, added))
    assert after["bars"].others is None  # of the known domains there is no image
    for name, prototype in before.items():
        assert after[name].others <= prototype.others
        assert after[name].threshold <= prototype.threshold
        assert after[name].mean == prototype.mean


def test_a_new_domain_that_looks_like_a_known_one(model, domains):
    """The images of one under the name of another."""
    plan, known = DomainPlan.load(model / "plan.json"), load_prototypes(model / "domains.json")
    alike = [{"image": path, "domain": "ring"} for path in sorted((domains / "disc" / "imagesTr").iterdir())]
    made = keep_away(network(model), plan, known, alike)
    assert made["disc"].others < 1.1 * known["disc"].own
    assert made["disc"].threshold == pytest.approx(max(1.1 * known["disc"].own, (known["disc"].own * made["disc"].others) ** 0.5))
    assert made["square"].others <= known["square"].others
    assert keep_away(network(model), plan, known, []) == known


def test_a_look_alike_is_warned_of(train, model, domains, tmp_path, caplog):
    shutil.copytree(domains / "disc", tmp_path / "data" / "ring")
    train(tmp_path / "out", "experiments/add_domain", dataset_dir=tmp_path / "data", model_dir=model, **SHORT)
    assert "disc: volumes of other domains look like its own; give --domain disc rather than auto" in caplog.text


def test_a_model_without_a_prior_of_all_its_domains_goes_on_without(train, added, model, third, tmp_path, caplog):
    """As after a further domain was added: that trains no prior, and the file of the model before knows the old domains only."""
    copy = shutil.copytree(added, tmp_path / "model")
    options = {"finetune": "true", "dataset_dir": third, "model_dir": copy, **SHORT}
    train(tmp_path / "none", **options)
    assert "anatomical_prior.pt: there is none, so the network goes on without" in caplog.text
    shutil.copy(model / "anatomical_prior.pt", copy)
    train(tmp_path / "old", **options)
    assert "anatomical_prior.pt: it is of ['disc', 'square'], so the network goes on without" in caplog.text
    for folder in (tmp_path / "none", tmp_path / "old"):
        assert (folder / "model.pt").is_file()
        assert not (folder / "anatomical_prior.pt").exists()


def refusal(train, output: Path, *overlays: str, **overrides) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        train(output, *overlays, **{**SHORT, **overrides})
    assert isinstance(cause(caught.value), DataError), caught.value
    assert not output.exists()
    return str(cause(caught.value))


def test_a_known_domain_is_no_new_one(train, model, tmp_path):
    assert "has a domain 'disc' already" in refusal(train, tmp_path / "out", "experiments/add_domain", model_dir=model)


def test_a_model_with_one_last_layer_takes_no_domain(train, model, third, tmp_path):
    plan = DomainPlan.load(model / "plan.json")
    plan = replace(plan, extra={**plan.extra, "network": {**plan.extra["network"], "domain_norms": False, "domain_heads": False}})
    plan.save(tmp_path / "shared" / "plan.json")
    save_weights(tmp_path / "shared" / "model.pt", network_from_plan(plan))
    options = {"dataset_dir": third, "model_dir": tmp_path / "shared"}
    assert "only a network with a last layer for each domain" in refusal(train, tmp_path / "out", "experiments/add_domain", **options)


def test_fine_tuning_on_a_domain_the_model_does_not_know(train, model, third, tmp_path):
    message = refusal(train, tmp_path / "out", finetune="true", model_dir=model, dataset_dir=third)
    assert "unknown domain" in message
    assert "'bars'" in message


def test_fine_tuning_on_other_slices(train, model, tmp_path):
    options = {"finetune": "true", "model_dir": model, "slice_plans": {"disc": {"slice_axis": 1}}}
    assert "slice_plans: slice_axis 1 of the domain 'disc', but the model goes on with 0" in refusal(train, tmp_path / "out", **options)


@pytest.mark.parametrize("size", [64, [64, 64]])
def test_fine_tuning_says_that_it_keeps_the_size_of_crops(model, domains, tmp_path, caplog, size):
    data = DomainRunData(domains, tmp_path, model, plan={"patch_size": size}, use_model_plan=True)
    caplog.set_level("INFO")
    data.save()
    (line,) = (record.message for record in caplog.records if "stay" in record.message)
    assert line.endswith("plan.json: the model's own settings stay: patch_size [32, 32] (not [64, 64])")
    assert DomainPlan.load(tmp_path / "plan.json").patch_size == (32, 32)


@pytest.mark.parametrize("size", [None, 32, (32, 32)])
def test_fine_tuning_on_crops_of_the_models_size_says_nothing(model, domains, tmp_path, caplog, size):
    caplog.set_level("INFO")
    DomainRunData(domains, tmp_path, model, plan={"patch_size": size}, use_model_plan=True).save()
    assert "stay" not in caplog.text


def test_a_checkpoint_of_other_domains(train, model, domains, tmp_path):
    """A plan and weights that were not made together."""
    (tmp_path / "model").mkdir()
    plan = json.loads((model / "plan.json").read_text())
    del plan["domains"]["square"]
    (tmp_path / "model" / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "model" / "model.pt").write_bytes((model / "model.pt").read_bytes())
    with pytest.raises(Exception) as caught:  # noqa: PT011
        train(tmp_path / "out", finetune="true", domains="disc", model_dir=tmp_path / "model", prior_weight=0, **SHORT)
    assert "weights of the domains ['disc', 'square'], but the network's are ['disc']" in str(cause(caught.value))
