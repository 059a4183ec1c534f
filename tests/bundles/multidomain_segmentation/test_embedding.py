from __future__ import annotations

import csv
import json

import matplotlib.image
import numpy as np
import pytest
import torch

from multidomain_segmentation import embedding
from multidomain_segmentation.embedding import Embedded, embed_cases, write_embeddings
from multidomain_segmentation.networks import network_from_plan
from multidomain_segmentation.worst import draw_case, worst_rows
from tools.bundle.checkpoint import load_weights
from tools.data.checks import DataError
from tools.data.decathlon import Case
from tools.data.domain_plan import DomainPlan
from tools.data.domains import read_domains
from tools.data.files import write_nifti
from tools.data.geometry import load_volume
from tools.data.slices import to_slices

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def loaded(model):
    """The tiny model's plan and network."""
    plan = DomainPlan.load(model / "plan.json")
    return plan, load_weights(model / "model.pt", network_from_plan(plan))


@pytest.fixture
def cases(domains) -> dict[str, tuple[Case, ...]]:
    return {name: dataset.cases[:2] for name, dataset in read_domains(domains).items()}


def test_pooled_features_are_under_the_norms_of_the_own_domain(loaded, cases):
    plan, network = loaded
    embedded = embed_cases(network, cases, plan, DEVICE)
    assert [row["domain"] for row in embedded.slices] == ["disc"] * 16 + ["square"] * 12
    images, _ = to_slices(*load_volume(cases["square"][1].image), plan.domains["square"])
    with torch.no_grad(), network.selector.use("square", DEVICE):
        maps = network.encoder(images[3, None, None])
    row = embedded.slices.index({"case": cases["square"][1].name, "slice": 3, "domain": "square"})
    for values, expected in zip(embedded.pooled, maps, strict=True):
        np.testing.assert_allclose(values[row], expected[0].mean((1, 2)).numpy(), rtol=1e-4, atol=1e-5)
    assert all(np.allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5) for values in embedded.projected)


def test_few_slices_of_a_volume_evenly_spread(loaded, cases, monkeypatch):
    monkeypatch.setattr(embedding, "SLICES", 3)
    found = embedding.embed_cases(loaded[1], {"disc": cases["disc"]}, loaded[0], DEVICE).slices
    assert [row["slice"] for row in found] == [0, 4, 7, 0, 4, 7]


def test_slices_without_a_structure_are_left_out(loaded, make_domain, make_volume, tmp_path):
    folder = make_domain(tmp_path, "disc", cases=1)
    label = make_volume("disc", 0)[1].copy()
    label[:3] = 0
    write_nifti(folder / "labelsTr" / "case_00.nii.gz", label, np.diag([4.0, 1.0, 1.0, 1.0]))
    found = embed_cases(loaded[1], {"disc": read_domains(tmp_path)["disc"].cases}, loaded[0], DEVICE).slices
    assert [row["slice"] for row in found] == [3, 4, 5, 6, 7]
    label[:5] = 0
    write_nifti(folder / "labelsTr" / "case_00.nii.gz", label, np.diag([4.0, 1.0, 1.0, 1.0]))
    with pytest.raises(DataError, match="only 3 slices"):
        embed_cases(loaded[1], {"disc": read_domains(tmp_path)["disc"].cases}, loaded[0], DEVICE)


def test_one_domain_has_no_silhouette(tmp_path):
    random = np.random.default_rng(0)
    embedded = Embedded([{"case": "a", "slice": k, "domain": "knee"} for k in range(6)], [random.normal(size=(6, 4))], [])
    assert write_embeddings(tmp_path, embedded) == {"silhouette": {"1": None}, "slices": 6}
    json.dumps(write_embeddings(tmp_path, embedded), allow_nan=False)
    with open(tmp_path / "embeddings.csv", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 6


def test_worst_rows_by_domain():
    scores = [("a", "knee", 0.9), ("b", "knee", 0.2), ("c", "knee", 0.5), ("d", "knee", float("nan")), ("a", "heart", 0.7)]
    rows = [{"case": case, "domain": domain, "dice_mean": dice} for case, domain, dice in scores]
    found = worst_rows(rows, 2)
    assert {domain: [row["case"] for row in members] for domain, members in found.items()} == {"knee": ["b", "c"], "heart": ["a"]}


@pytest.mark.parametrize(("unit", "wide"), [("mm", True), ("voxel", False)])
def test_a_case_is_drawn_in_slices_with_its_proportions(loaded, make_domain, make_volume, tmp_path, unit, wide):
    folder = make_domain(tmp_path, "disc", cases=1)
    # pixels three times as wide as high, and the slices' axis towards the left
    affine = np.diag([-4.0, 3.0, 1.0, 1.0])
    image, label = make_volume("disc", 0)
    write_nifti(folder / "imagesTr" / "case_00.nii.gz", image, affine)
    write_nifti(folder / "labelsTr" / "case_00.nii.gz", label, affine)
    case = read_domains(tmp_path)["disc"].cases[0]
    draw_case(tmp_path / "case.png", case, label, loaded[0].domains["disc"], unit, "disc")
    height, width = matplotlib.image.imread(tmp_path / "case.png").shape[:2]
    # two rows of three slices, and some text
    assert (width > 2.5 * height) is wide
