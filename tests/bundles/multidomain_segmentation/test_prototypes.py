from __future__ import annotations

import json

import pytest
import torch
from sklearn.covariance import ledoit_wolf_shrinkage

from multidomain_segmentation.prototypes import DomainFinder, Prototype, fit_prototype, load_prototypes, own_reach
from tools.bundle.errors import cause
from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan


def cloud(centre: float, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + centre


def fitted(own: torch.Tensor, others: torch.Tensor | None = None, stray: float = 0.0, patients: list[str] | None = None) -> Prototype:
    """Of one domain, as :func:`multidomain_segmentation.prototypes.make_prototypes` fits those of all."""
    return fit_prototype(own, own_reach(own, patients), others, stray, None if patients is None else len(set(patients)))


def test_distance_is_that_of_mahalanobis():
    """In units of the spread (2, 1); by hand along (0.6, 0.8): 2, and across: -1."""
    prototype = Prototype([1.0, 2.0], [0.5, 2.0], axes=[[0.6, 0.8]], variances=[4.0], rest=0.25, threshold=1.0, volumes=3)
    assert prototype.distance(torch.tensor([2.0, 4.0], dtype=torch.float64)) == pytest.approx(((2**2 / 4 + 1**2 / 0.25) / 2) ** 0.5)


def test_covariance_is_shrunk_towards_the_spread():
    own = cloud(5, 60)
    own[:, :3] += torch.linspace(-9, 9, 60, dtype=torch.float64)[:, None]
    prototype, mean = fitted(own), own.mean(0)
    spread = torch.tensor(prototype.spread, dtype=torch.float64)
    share = prototype.rest
    assert share == pytest.approx(max(ledoit_wolf_shrinkage(((own - mean) / spread).numpy()), 4 / 64))
    expected = (1 - share) * torch.cov(((own - mean) / spread).T) + share * torch.eye(20)
    for other in cloud(7, 4, 1):
        difference = (other - mean) / spread
        assert prototype.distance(other) == pytest.approx(
            (difference @ torch.linalg.solve(expected, difference) / 20).sqrt().item(), rel=1e-4
        )


def test_a_direction_in_which_no_volume_varies_counts_most():
    own = cloud(5, 12)
    own[:, 1] = own[:, 0]
    prototype, mean = fitted(own), own.mean(0)
    along, across = torch.zeros(20).double(), torch.zeros(20).double()
    along[:2], across[0], across[1] = 1, 1, -1
    assert prototype.distance(mean + across) > 1.1 * prototype.distance(mean + along)


def test_own_volumes_are_near_and_others_far():
    prototype = fitted(cloud(5, 10), cloud(20, 6, 1))
    assert prototype.own < prototype.threshold < prototype.others
    assert all(prototype.distance(other) < prototype.threshold for other in cloud(5, 20, 2))
    assert all(prototype.distance(other) > prototype.threshold for other in cloud(20, 20, 3))


def test_overlapping_domains_keep_their_own_volumes():
    prototype = fitted(cloud(5, 10), cloud(5, 6, 1))
    assert prototype.threshold == pytest.approx(1.1 * prototype.own)


def test_one_volume():
    assert fitted(cloud(5, 1)).threshold is None
    alone = fitted(cloud(5, 1), cloud(20, 2))
    assert alone.threshold == pytest.approx(alone.others / 2)


@pytest.mark.parametrize(("volumes", "factor"), [(4, 1.8), (16, 1.4), (64, 1.4)])
def test_without_other_domains(volumes, factor):
    prototype = fitted(cloud(5, volumes))
    assert prototype.threshold == pytest.approx(factor * prototype.own)
    assert prototype.others is None


def test_volumes_of_one_patient_are_left_out_together():
    """Each volume twice: beside its double, a volume would look near."""
    once, noise = cloud(5, 6), 1e-3 * cloud(0, 6, 7)
    twice, patients = torch.stack((once, once + noise), 1).flatten(0, 1), [str(k // 2) for k in range(12)]
    assert fitted(twice, patients=patients).own > 1.2 * fitted(twice).own
    assert fitted(twice, patients=["1"] * 12).own is None


def test_other_domains_say_how_far_volumes_stray():
    own, prototype = cloud(5, 4), fitted(cloud(5, 4), stray=7.0)
    assert prototype.threshold == pytest.approx(1.8 * 7)
    assert fitted(own, cloud(20, 3), stray=1e6).threshold == pytest.approx((prototype.own * fitted(own, cloud(20, 3)).others) ** 0.5)


def test_prototypes_of_a_model(model):
    made = load_prototypes(model / "domains.json")
    assert list(made) == ["disc", "square"]
    for prototype in made.values():
        assert prototype.volumes == 3  # six cases, two held out, one validated on
        assert prototype.own < prototype.threshold < prototype.others


@pytest.mark.parametrize("name", ["disc", "square"])
def test_each_held_out_image_is_found(model, domains, name):
    finder = DomainFinder(DomainPlan.load(model / "plan.json"), model)
    for case in json.loads((model / "splits.json").read_text())["domains"][name]["report"]:
        found = finder(domains / name / "imagesTr" / f"{case}.nii.gz")
        assert found.domain == name
        assert 0.5 < found.confidence <= 1
        assert found.distance < found.threshold


def test_a_foreign_image_is_refused_unless_forced(model, third):
    plan, image = DomainPlan.load(model / "plan.json"), third / "imagesTr" / "case_00.nii.gz"
    with pytest.raises(DataError, match=r"case_00.nii.gz: like no domain the model knows; the nearest, .* at a distance of"):
        DomainFinder(plan, model)(image)
    assert DomainFinder(plan, model, force="true")(image).domain in plan.names


def test_no_prototypes(model, tmp_path, domains):
    finder = DomainFinder(DomainPlan.load(model / "plan.json"), tmp_path)
    with pytest.raises(DataError, match="domains.json: missing, .* give --domain NAME") as caught:
        finder(domains / "disc" / "imagesTr" / "case_00.nii.gz")
    assert cause(caught.value) is caught.value


@pytest.mark.parametrize("content", [{}, {"version": 2, "domains": {}}, {"version": 2, "domains": {"a": {}}}, []])
def test_a_file_without_prototypes(tmp_path, content):
    (tmp_path / "domains.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="holds no prototypes"):
        load_prototypes(tmp_path / "domains.json")


@pytest.mark.parametrize("labelled", [None, 1])
def test_a_trained_model_is_described_anew_by_images_with_and_without_label(bundle_call, model, domains, tiny, tmp_path, labelled):
    records = json.loads((model / "splits.json").read_text())["domains"]
    for record in records.values():
        record["labelled"] = record["labelled"][:labelled]
    (tmp_path / "splits.json").write_text(json.dumps({"domains": records}))
    options = {**tiny, "splits_file": tmp_path / "splits.json", "dataset_dir": domains, "model_dir": model, "output_dir": tmp_path}
    bundle_call("describing", "train", "evaluate", **options)
    made, before = (load_prototypes(folder / "domains.json") for folder in (tmp_path, model))
    assert set(made) == set(records)
    for name, prototype in made.items():
        assert prototype.volumes == len(records[name]["train"]) > 1
        assert prototype.mean == pytest.approx(before[name].mean)
        assert prototype.threshold == pytest.approx(before[name].threshold)
