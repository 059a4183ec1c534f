from __future__ import annotations

import hashlib
import json
import tarfile

import pytest

from tools.__main__ import main
from tools.commands.data import hippocampus, phantoms, split, typical
from tools.data.checks import DataError
from tools.data.decathlon import read_dataset
from tools.data.folders import fill_new_folder
from tools.data.plan import make_plan
from tools.data.splits import select
from tools.data.typical import typical_cases


def test_phantoms_write_a_readable_data_set(tmp_path, capsys):
    phantoms(str(tmp_path / "set"), joint="ankle", cases=2, size=(16, 16, 16), points=20)
    assert capsys.readouterr().out.strip() == str(tmp_path / "set")
    dataset = read_dataset(tmp_path / "set")
    assert dataset.labels == {0: "background", 1: "tibia", 2: "fibula", 3: "talus"}
    assert [case.domain for case in dataset.cases] == ["ankle", "ankle"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"joint": "elbow"}, "unknown joint 'elbow': choose from ankle, knee, shoulder"),
        ({"cases": 0}, "cases must be at least 1"),
        ({"cases": 1.5}, "--cases takes 1 whole number"),
        ({"size": (48, 64)}, "--size takes 3 whole number"),
        ({"size": (4, 16, 16)}, "at least 8 voxels"),
        ({"spacing": (1.0, 2.0)}, "--spacing takes 1 or 3"),
        ({"spacing": -1.0}, "spacing must be positive"),
        ({"seed": -1}, "seed and case_index must not be negative"),
        ({"points": 0}, "points must be positive"),
    ],
)
def test_phantoms_refuse(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        phantoms(str(tmp_path / "set"), **{"size": (16, 16, 16), "cases": 1, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_phantoms_refuse_a_folder_with_content(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="not an empty folder"):
        phantoms(str(tmp_path), cases=1)
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "set").mkdir()
    fill_new_folder(tmp_path / "set", lambda folder: (folder / "a.txt").write_text("a"))
    assert (tmp_path / "set" / "a.txt").read_text() == "a"


def test_an_interrupted_folder_leaves_nothing(tmp_path):
    def interrupted(folder):
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_new_folder(tmp_path / "set", interrupted)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def archive(tiny_dataset, tmp_path):
    """The tiny data set packed as the Decathlon packs, resource forks included: (url, md5, sha256)."""
    (tiny_dataset / "imagesTr" / "._case_00.nii.gz").write_bytes(b"fork")
    (tiny_dataset / "._dataset.json").write_bytes(b"fork")
    path = tmp_path / "archive" / "Task.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        tar.add(tiny_dataset, "Task04_Hippocampus")
    return path.as_uri(), hashlib.md5(path.read_bytes()).hexdigest(), hashlib.sha256(path.read_bytes()).hexdigest()


def test_hippocampus_is_unpacked_into_place(archive, tmp_path):
    url, md5, sha256 = archive
    hippocampus(str(tmp_path / "new" / "set"), url=url, md5=md5, progress=False)
    names = ["Task.tar.sha256", "dataset.json", "imagesTr", "labelsTr"]
    assert sorted(path.name for path in (tmp_path / "new" / "set").iterdir()) == names
    assert (tmp_path / "new" / "set" / "Task.tar.sha256").read_text() == f"{sha256}  Task.tar\n"
    assert not list((tmp_path / "new" / "set").glob("**/._*"))
    assert len(read_dataset(tmp_path / "new" / "set").cases) == 6
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]


def test_hippocampus_refuses_a_wrong_checksum(archive, tmp_path):
    with pytest.raises(DataError, match=r"could not be downloaded and unpacked: .*hash check") as caught:
        hippocampus(str(tmp_path / "new" / "set"), url=archive[0], md5="0" * 32, progress=False)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "new").iterdir()) == []


def test_hippocampus_of_a_known_sha256(archive, tmp_path):
    """The command, by which a checksum stays text."""
    url, md5, sha256 = archive
    options = {"to": str(tmp_path / "set"), "url": url, "md5": md5, "sha256": sha256.upper(), "progress": "false"}
    main(["data", "hippocampus", *(word for key, value in options.items() for word in (f"--{key}", value))])
    assert (tmp_path / "set" / "dataset.json").is_file()


def test_hippocampus_of_another_sha256_is_not_unpacked(archive, tmp_path, monkeypatch):
    monkeypatch.setattr("monai.apps.extractall", lambda *arguments, **options: pytest.fail("unpacked"))
    url, md5, sha256 = archive
    with pytest.raises(DataError, match=rf"Task\.tar: its sha256 is {sha256}, not {'0' * 64}: damaged, or another archive"):
        hippocampus(str(tmp_path / "new" / "set"), url=url, md5=md5, sha256="0" * 64, progress=False)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("sha256", ["0" * 63, "g" * 64, ""])
def test_hippocampus_refuses_what_is_no_sha256(tmp_path, sha256):
    with pytest.raises(ValueError, match="--sha256 takes 64 hexadecimal digits"):
        hippocampus(str(tmp_path / "set"), sha256=sha256)


def test_hippocampus_refuses_a_missing_archive(tmp_path):
    with pytest.raises(DataError, match="could not be downloaded"):
        hippocampus(str(tmp_path / "new" / "set"), url=(tmp_path / "none.tar").as_uri(), md5="0" * 32, progress=False)
    assert list((tmp_path / "new").iterdir()) == []


def test_hippocampus_refuses_an_archive_without_a_data_set(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with tarfile.open(tmp_path / "other.tar", "w") as tar:
        tar.add(tmp_path / "readme.txt", "other/readme.txt")
    md5 = hashlib.md5((tmp_path / "other.tar").read_bytes()).hexdigest()
    with pytest.raises(DataError, match=r"holds 0 dataset\.json"):
        hippocampus(str(tmp_path / "new" / "set"), url=(tmp_path / "other.tar").as_uri(), md5=md5, progress=False)
    assert list((tmp_path / "new").iterdir()) == []


def test_hippocampus_wants_a_checksum_with_a_url(tmp_path):
    with pytest.raises(ValueError, match="go together"):
        hippocampus(str(tmp_path / "set"), url="https://example.org/x.tar")


def test_dataset_json_says_what_it_is(tmp_path):
    phantoms(str(tmp_path / "set"), joint="shoulder", cases=1, seed=3, size=(16, 16, 16), points=10)
    description = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert description["name"] == "shoulder phantoms"
    assert description["licence"] == "CC0 1.0"
    assert description["numTraining"] == 1
    assert description["test"] == []
    assert description["training"] == [
        {
            "image": "./imagesTr/shoulder_000.nii.gz",
            "label": "./labelsTr/shoulder_000.nii.gz",
            "domain": "shoulder",
            "particles": "./particles/shoulder_000.particles",
        }
    ]


def test_a_split_that_a_training_follows(tiny_dataset, tmp_path, capsys):
    file = tmp_path / "splits.json"
    split(str(tiny_dataset), str(file), folds=2, holdout=2)
    assert capsys.readouterr().out == f"{file}: 2 cases to train, 2 to validate, 2 to report\n"
    chosen = select(read_dataset(tiny_dataset), folds=2, holdout=2, label_limit=1)
    followed = select(read_dataset(tiny_dataset), splits_file=file, label_limit=1)
    assert (followed.train, followed.validation, followed.report) == (chosen.train, chosen.validation, chosen.report)
    assert len(followed.labelled) == 1


def test_a_split_is_not_overwritten(tiny_dataset, tmp_path):
    (tmp_path / "splits.json").write_text("precious")
    with pytest.raises(DataError, match="splits.json: exists already"):
        split(str(tiny_dataset), str(tmp_path / "splits.json"))
    assert (tmp_path / "splits.json").read_text() == "precious"


def test_which_images_to_label(tiny_dataset, capsys):
    dataset = read_dataset(tiny_dataset)
    order = list(typical_cases(dataset.cases, make_plan(dataset)))
    main(["data", "typical", "--dataset_dir", str(tiny_dataset), "--count", "3"])
    assert capsys.readouterr().out.split() == order[:3]


def test_images_to_label_need_no_label(tiny_dataset, capsys):
    typical(str(tiny_dataset), count=2, start=1)
    with_labels = capsys.readouterr().out
    description = json.loads((tiny_dataset / "dataset.json").read_text())
    description["training"] = [{"image": entry["image"]} for entry in description["training"]]
    (tiny_dataset / "dataset.json").write_text(json.dumps(description))
    typical(str(tiny_dataset), count=2, start=1)
    assert capsys.readouterr().out == with_labels


@pytest.mark.parametrize(
    ("options", "message"), [({"count": 7}, "--count must be from 1 to 6, got 7"), ({"start": 6}, "--start must be from 0 to 5, got 6")]
)
def test_more_images_than_there_are(tiny_dataset, options, message):
    with pytest.raises(ValueError, match=message):
        typical(str(tiny_dataset), **options)
