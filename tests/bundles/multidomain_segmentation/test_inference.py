"""Volumes in, volumes out."""

from __future__ import annotations

import csv
import json
import shutil
import unicodedata
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from multidomain_segmentation.data import DomainRunData
from multidomain_segmentation.evaluation import segment
from multidomain_segmentation.inference import images_of, images_to_segment, postprocessing, preprocessing
from multidomain_segmentation.networks import DomainNetwork, network_from_plan
from tools.bundle.checkpoint import load_weights
from tools.bundle.errors import cause
from tools.data.checks import DataError
from tools.data.domain_plan import DomainPlan
from tools.data.domains import read_domains
from tools.data.files import write_nifti


def infer(call, model: Path, images: Path, output: Path, **overrides) -> Path:
    settings = {"device": "cpu", "precision": "float32", **overrides}
    call("run", "inference", dataset_dir=images, model_dir=model, output_dir=output, **settings)
    return output


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def dice(a: np.ndarray, b: np.ndarray, value: int) -> float:
    return float(2 * ((a == value) & (b == value)).sum() / ((a == value).sum() + (b == value).sum()))


@pytest.fixture(scope="module")
def found(bundle_call, model, domains, tmp_path_factory) -> Path:
    """Segmentations of two images of each of two data sets in one folder, whose cases have the same names; domains found."""
    images = tmp_path_factory.mktemp("images")
    for name in ("disc", "square"):
        shutil.copytree(domains / name / "imagesTr", images / name / "imagesTr")
        content = json.loads((domains / name / "dataset.json").read_text())
        (images / name / "dataset.json").write_text(json.dumps({**content, "training": content["training"][:2]}))
    return infer(bundle_call, model, images, tmp_path_factory.mktemp("found"))


def test_files_lie_flat_with_the_data_set_in_front(found):
    names = {f"{name}_{case}_seg.nii.gz" for name in ("disc", "square") for case in ("case_00", "case_01")}
    assert {path.name for path in found.iterdir()} == names | {"domains.csv"}


def test_domains_are_found_and_written(found):
    with open(found / "domains.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == ["disc_case_00", "disc_case_01", "square_case_00", "square_case_01"]
    for row in rows:
        assert row["domain"] == row["case"].split("_")[0]
        assert float(row["distance"]) < float(row["threshold"])
        assert float(row["confidence"]) > 0.5


@pytest.mark.parametrize(("name", "values"), [("disc", (0, 2, 5)), ("square", (0, 1))])
def test_the_truth_is_found_in_the_domains_own_values(found, domains, name, values):
    result, truth = nib.load(found / f"{name}_case_01_seg.nii.gz"), nib.load(domains / name / "labelsTr" / "case_01.nii.gz")
    assert result.shape == truth.shape
    np.testing.assert_allclose(result.affine, truth.affine)
    assert result.get_data_dtype() == np.uint8
    label, expected = np.asarray(result.dataobj), np.asarray(truth.dataobj)
    assert set(np.unique(label)) == set(values)
    assert dice(label, expected, values[-1]) > 0.7


def test_a_folder_of_images_of_a_named_domain(bundle_call, model, domains, tmp_path, found):
    """Turned, with permuted axes and finer pixels: the answer lies on the image's own grid."""
    image = nib.load(domains / "disc" / "imagesTr" / "case_01.nii.gz")
    volume, affine = np.asarray(image.dataobj), image.affine
    write_nifti(tmp_path / "in" / "plain.nii.gz", volume, affine)
    order = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # new axes 0, 1, 2 are old 2, 0, 1
    flip = np.diag([1.0, -1.0, 1.0, 1.0])
    flip[1, 3] = volume.shape[0] - 1
    write_nifti(tmp_path / "in" / "turned.nii.gz", volume.transpose(2, 0, 1)[:, ::-1], affine @ order @ flip)
    fine = affine @ np.array([[1, 0, 0, 0], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1]])
    write_nifti(tmp_path / "in" / "fine.nii.gz", volume.repeat(2, axis=1).repeat(2, axis=2), fine)
    output = infer(bundle_call, model, tmp_path / "in", tmp_path / "out", domain="disc")
    plain, turned, large = (read(output / f"{name}_seg.nii.gz") for name in ("plain", "turned", "fine"))
    assert (plain == read(found / "disc_case_01_seg.nii.gz")).all()
    assert (turned[:, ::-1].transpose(1, 2, 0) == plain).all()
    assert large.shape == (8, 64, 64)
    assert dice(large, plain.repeat(2, axis=1).repeat(2, axis=2), 5) > 0.9
    with open(output / "domains.csv", newline="") as stream:
        assert [(row["case"], row["domain"], row["distance"]) for row in csv.DictReader(stream)] == [
            ("fine", "disc", ""),
            ("plain", "disc", ""),
            ("turned", "disc", ""),
        ]


def test_the_evaluation_segments_alike(found, model, domains):
    plan = DomainPlan.load(model / "plan.json")
    network = DomainNetwork(load_weights(model / "model.pt", network_from_plan(plan)), plan)
    result = segment(network, domains / "disc" / "imagesTr" / "case_01.nii.gz", plan, "disc", torch.device("cpu"))
    assert (result == read(found / "disc_case_01_seg.nii.gz")).all()


def test_a_program_that_knows_no_domains_gets_the_union(model, domains, tmp_path):
    """MONAI Label's way: a path in, the configured domain, label values as ``channel_def`` of the metadata counts them."""
    plan, path = DomainPlan.load(model / "plan.json"), domains / "square" / "imagesTr" / "case_00.nii.gz"
    data = preprocessing(plan, finder=None, domain="square")({"image": str(path)})
    network = DomainNetwork(load_weights(model / "model.pt", network_from_plan(plan)), plan, "square")
    with torch.no_grad():
        data["pred"] = network(data["image"][None])[0]
    assert len(data["pred"]) == 3  # background, core, shell
    result = postprocessing(plan, tmp_path)(data)
    assert set(np.unique(result["pred"])) == {0, 2}  # shell is 1 in the data set
    assert read(tmp_path / "case_00_seg.nii.gz").shape == nib.load(path).shape


def test_images_by_data_set(domains):
    found = images_of(domains)
    assert {folder: {case.domain for case in cases} for folder, cases in found.items()} == {"disc": {"disc"}, "square": {"square"}}
    assert [case.domain for case in images_of(domains / "disc")[""]] == [None] * 6
    assert [case.domain for case in images_of(domains / "disc" / "imagesTr")[""]] == [None] * 6


@pytest.mark.parametrize("described", ["folder", "data set", "entry", "labels of domains"])
def test_images_described_as_of_the_named_domain_are_taken(model, domains, tmp_path, described):
    """In each of the layouts that training reads."""
    plan, folder = DomainPlan.load(model / "plan.json"), shutil.copytree(domains, tmp_path / "data")
    if described == "data set":
        for name, number in (("disc", 1), ("square", 2)):
            content = json.loads((folder / name / "dataset.json").read_text())
            (folder / name / "dataset.json").write_text(json.dumps({**content, "domain": name}))
            (folder / name).rename(folder / f"set{number}")
    elif described in ("entry", "labels of domains"):
        contents = {name: json.loads((folder / name / "dataset.json").read_text()) for name in ("disc", "square")}
        entries = [
            {"image": f"./{name}/{entry['image'][2:]}", "domain": name}
            for name, content in contents.items()
            for entry in content["training"][:3]
        ]
        for k, entry in enumerate(entries):
            image = folder / entry["image"]
            entry["image"] = f"./{k}.nii.gz"
            image.rename(folder / entry["image"])
        labels = {name: {"labels": content["labels"]} for name, content in contents.items()}
        common = {"domains": labels} if described == "labels of domains" else {"labels": contents["disc"]["labels"]}
        (folder / "dataset.json").write_text(json.dumps({**common, "training": entries}))
    one_folder = (folder / "dataset.json").is_file()
    count = 3 if one_folder else 6
    assert read_domains(folder).keys() == {"disc", "square"}
    assert [case["domain"] for case in images_to_segment(folder, plan, finder=None, domain="square")] == ["square"] * count
    names = {case["name"] for case in images_to_segment(folder, plan, finder=None, domain="square")}
    assert names == ({"3", "4", "5"} if one_folder else {f"case_{k:02d}" for k in range(6)})


def test_decomposed_names_of_domains(model, domains, tmp_path):
    """A Mac's, of the folder, in ``domain`` of the command line, and of the target of a training."""
    mac = unicodedata.normalize("NFD", "Hüfte")
    shutil.copytree(domains / "disc", tmp_path / mac)
    assert [case.domain for case in images_of(tmp_path)[mac]] == ["Hüfte"] * 6
    assert DomainRunData(target=mac).target == "Hüfte"


def test_domain_of_the_command_line_is_composed(bundle):
    mac = unicodedata.normalize("NFD", "Hüfte")
    options = {"bundle_root": str(bundle.root), "domain": mac}
    assert bundle.workflow("inference", kind="infer", **options).parser.get_parsed_content("domain_name") == "Hüfte"


def refusal(call, model, images, output, **overrides) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - MONAI wraps it
        infer(call, model, images, output, **overrides)
    assert isinstance(cause(caught.value), DataError), caught.value
    assert not output.exists()
    return str(cause(caught.value))


def test_a_foreign_image_stops_before_anything_is_written(bundle_call, model, third, tmp_path):
    assert "case_00.nii.gz: like no domain the model knows" in refusal(bundle_call, model, third, tmp_path / "out")


@pytest.mark.parametrize(("domain", "message"), [("disk", "unknown domain 'disk', the nearest is 'disc'"), (2019, "unknown domain '2019'")])
def test_an_unknown_domain(bundle_call, model, third, tmp_path, domain, message):
    assert message in refusal(bundle_call, model, third, tmp_path / "out", domain=domain)


def test_no_data_set_is_named(bundle_call, model, domains, tmp_path, monkeypatch):
    monkeypatch.chdir(domains)
    assert "no data set: give --dataset_dir, a data set, a folder of data sets" in refusal(bundle_call, model, "", tmp_path / "out")


def test_no_image(bundle_call, model, tmp_path):
    (tmp_path / "in").mkdir()
    assert "no image found" in refusal(bundle_call, model, tmp_path / "in", tmp_path / "out", domain="disc")
