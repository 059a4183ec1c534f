from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.data.checks import DataError
from tools.data.decathlon import case_name, particle_name, read_dataset, read_images, unlisted_images
from tools.data.domains import read_domains


@pytest.fixture
def edit(tiny_dataset):
    """Changes entries of the tiny data set's dataset.json and returns the folder."""

    def change(**fields):
        path = tiny_dataset / "dataset.json"
        content = {**json.loads(path.read_text()), **fields}
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
        return tiny_dataset

    return change


@pytest.mark.parametrize(("path", "name"), [("a/b.nii.gz", "b"), ("b.1.nii", "b.1"), ("b.txt", "b.txt")])
def test_case_name(path, name):
    assert case_name(path) == name


def test_reads_plain_folder(tiny_dataset):
    dataset = read_dataset(tiny_dataset)
    assert dataset.name == "blobs"
    assert dataset.labels == {0: "background", 1: "left", 2: "right"}
    assert [case.name for case in dataset.cases] == [f"case_{k:02d}" for k in range(6)]
    assert dataset.cases[0].image.is_file()
    assert dataset.cases[0].label.is_file()
    assert dataset.test == ()
    assert dataset.slice_axis is None
    assert dataset.cases[0].domain is None


def test_images_that_no_list_names(edit):
    root = edit(training=["./imagesTr/case_02.nii.gz", {"image": "imagesTr/../imagesTr/case_01.nii.gz"}], test=["imagesTr/case_04.nii.gz"])
    (root / "imagesTr" / "._case_00.nii.gz").write_bytes(b"fork")
    assert unlisted_images(root) == [root / "imagesTr" / f"case_0{k}.nii.gz" for k in (0, 3, 5)]


def test_without_a_training_list_every_image_is_listed(edit):
    assert unlisted_images(edit(training=...)) == []


def test_listed_images_may_lie_elsewhere(edit):
    root = edit(training=["images/case_00.nii.gz"])
    (root / "imagesTr").rename(root / "images")
    assert unlisted_images(root) == []


def test_sorted_unlabelled_domain_particles(edit):
    root = edit(
        domain="knee",
        slice_axis=2,
        training=["./imagesTr/case_02.nii.gz", {"image": "imagesTr/case_01.nii.gz", "domain": "ankle", "particles": "p/x.particles"}],
        test=["./imagesTr/case_03.nii.gz"],
    )
    (root / "particles").mkdir()
    (root / "particles" / "case_02.particles").write_text("0 0 0\n")
    dataset = read_dataset(root)
    first, second = dataset.cases
    assert (first.name, first.domain, first.particles) == ("case_01", "ankle", root / "p/x.particles")
    assert (second.name, second.domain, second.label) == ("case_02", "knee", None)
    assert second.particles == root / "particles" / "case_02.particles"
    assert dataset.slice_axis == 2
    assert [case.name for case in dataset.test] == ["case_03"]


def test_a_listed_label_without_an_image(edit):
    root = edit(training=...)
    (root / "labelsTr" / "case_00.nii.gz").rename(root / "labelsTr" / "case00.nii.gz")
    with pytest.raises(DataError, match=r"case00\.nii\.gz: no image in .* has its name; the nearest is case_00"):
        read_dataset(root)


@pytest.mark.parametrize("labels", [{"0": "background", "3": "bone"}, {"background": 0, "bone": 3}, {"3": "bone"}])
def test_labels_in_either_order(edit, labels):
    assert read_dataset(edit(labels=labels)).labels == {0: "background", 3: "bone"}


def test_without_training_list_folders_are_listed(edit):
    root = edit(training=...)
    (root / "imagesTr" / "case_00.nii.gz").rename(root / "imagesTr" / "case_00_0000.nii.gz")
    (root / "imagesTr" / "._case_00_0000.nii.gz").write_text("")
    dataset = read_dataset(root)
    assert len(dataset.cases) == 6
    assert dataset.cases[0].label == root / "labelsTr" / "case_00.nii.gz"


@pytest.mark.parametrize("listed", [..., [{"image": "imagesTr/case_00_0000.nii.gz", "label": "labelsTr/case_00.nii.gz"}]])
def test_particles_of_images_named_as_nnunet_does(edit, listed):
    root = edit(training=listed)
    (root / "imagesTr" / "case_00.nii.gz").rename(root / "imagesTr" / "case_00_0000.nii.gz")
    (root / "particles").mkdir()
    (root / "particles" / "case_00.particles").write_text("0 0 0\n")
    assert read_dataset(root).cases[0].particles == root / "particles" / "case_00.particles"


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [("a_0000", "l/a.nii.gz", "a"), ("a_0000", "l/a_0000.nii.gz", "a_0000"), ("a_0000", None, "a"), ("a", "l/b.nii.gz", "a")],
)
def test_names_of_particle_files(name, label, expected):
    assert particle_name(name, None if label is None else Path(label)) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": ...}, "labels"),
        ({"labels": {"0": "background"}}, "beside the background"),
        ({"labels": {"0": "background", "bone": [1, 2]}}, "bone"),
        ({"labels": {"a": 1, "b": 1}}, "twice"),
        ({"labels": {"0": "background", "1": "lung", "2": "lung"}}, "two values the name 'lung'"),
        ({"labels": {"0": "background", "1": "mean"}}, "the name 'mean', which stands for all structures"),
        ({"training": {"image": "x"}}, "must be a list"),
        ({"training": [{"label": "x.nii.gz"}]}, "entry 0"),
        ({"training": [{"image": "x.nii.gz", "label": 3}]}, "label"),
        ({"training": [{"image": "x.nii.gz", "patient": 1.5}]}, '"patient" must be a string or a whole number, not 1.5'),
        ({"training": [{"image": "x.png"}]}, "x.png"),
        ({"slice_axis": 3}, "slice_axis"),
        ({"domain": 7}, '"domain" must be a string, not 7'),
    ],
)
def test_malformed_description(edit, fields, message):
    with pytest.raises(DataError, match=message) as caught:
        read_dataset(edit(**fields))
    assert len(str(caught.value).splitlines()) == 1


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        read_dataset(tmp_path / "nothing")


def test_no_description(tmp_path):
    with pytest.raises(DataError, match=r"dataset\.json: missing"):
        read_dataset(tmp_path)


def test_broken_json(tmp_path):
    (tmp_path / "dataset.json").write_text('{"labels": ')
    with pytest.raises(DataError, match=r"dataset\.json: not readable as JSON"):
        read_dataset(tmp_path)


def test_images_of_a_data_set_are_its_test_list_or_all(edit, tiny_dataset):
    assert len(read_images(tiny_dataset)) == 6
    assert [case.name for case in read_images(edit(test=[{"image": "imagesTr/case_04.nii.gz"}]))] == ["case_04"]


def test_images_to_predict_on_need_no_labels(edit):
    assert len(read_images(edit(labels=..., domains={"knee": {"labels": {"0": "background", "1": "femur"}}}))) == 6


def test_images_of_a_folder_and_of_a_file(tiny_dataset):
    assert len(read_images(tiny_dataset / "imagesTr")) == 6
    assert [case.name for case in read_images(tiny_dataset / "imagesTr" / "case_01.nii.gz")] == ["case_01"]


@pytest.mark.parametrize("read", [read_dataset, read_images, read_domains])
def test_no_folder_is_named(tiny_dataset, monkeypatch, read):
    """An empty path is the current folder to Python."""
    monkeypatch.chdir(tiny_dataset)
    assert read(".")
    with pytest.raises(DataError, match="^no data set: give --dataset_dir, a folder"):
        read("")


def test_no_images(tmp_path):
    with pytest.raises(DataError, match="no image found"):
        read_images(tmp_path)
