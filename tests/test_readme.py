"""The commands of the README, run in a shell from the repository's root as they stand there, on small data; trainings are cut short."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blobs import write_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
SHORT = "--epochs 1 --epoch_length 14 --holdout 2 --device cpu --registration_channels [8,8,8,8] --segmentation_channels [8,8,8,8]"


def commands() -> list[str]:
    """Those of ``monai.bundle`` in the README's blocks, in their order, each in one line."""
    blocks = re.findall(r"^```\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("python -m monai.bundle")]


def only(words: str) -> str:
    """The one command that has these words."""
    (found,) = [command for command in commands() if words in command]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """What the README's capitals stand for: a data set DIR, a folder NEW of images, and a table of a pair."""
    place = tmp_path_factory.mktemp("readme")
    data = write_dataset(place / "DIR", cases=8, labelled=6)
    (place / "NEW").mkdir()
    shutil.copy(data / "imagesTr/case_06.nii.gz", place / "NEW")
    names = [f"DIR/{folder}/{case}.nii.gz" for folder in ("imagesTr", "labelsTr") for case in ("case_00", "case_01")]
    (place / "pairs.csv").write_text("fixed,moving,fixed_label,moving_label\n" + ",".join(names) + "\n")
    return place


def shell(command: str, place: Path, options: str = "") -> None:
    """Run it in a shell, with the capitals' places, by this Python."""
    for word in ("DIR", "NEW", "OUT", "RESULT", "pairs.csv"):
        command = re.sub(rf" {re.escape(word)}\b", f" {shlex.quote(str(place / word))}", command)
    line = command.replace("python", shlex.quote(sys.executable), 1) + f" {options}"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(["bash", "-c", line], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def trained(place) -> Path:
    shell(only("joint.json"), place, SHORT)
    return place / "OUT"


def test_there_are_no_others():
    assert len(commands()) == 5


def test_few_labels(trained):
    assert {path.name for path in trained.glob("*.pt")} == {"model.pt", "registration.pt"}
    split = json.loads((trained / "splits.json").read_text())
    assert (len(split["train"]), len(split["report"])) == (6, 2)


def test_many_labels(place, tmp_path):
    (tmp_path / "DIR").symlink_to(place / "DIR")
    shell(only("train.json --dataset_dir"), tmp_path, SHORT)
    assert {path.name for path in (tmp_path / "OUT").glob("*.pt")} == {"model.pt", "registration.pt"}


def test_segment(trained, place):
    shell(only("inference.json"), place)
    assert [path.name for path in (place / "RESULT").glob("*_seg.nii.gz")] == ["case_06_seg.nii.gz"]


def test_register(trained, place):
    shell(only("register.json"), place)
    for end in ("warped", "warped_label", "ddf"):
        assert (place / "RESULT" / f"case_01_to_case_00_{end}.nii.gz").is_file()


def test_evaluate(trained, place):
    shell(only("evaluate.json"), place)
    with open(place / "RESULT" / "metrics.csv", newline="") as stream:
        cases = [row["case"] for row in csv.DictReader(stream)]
    assert cases == sorted(json.loads((trained / "splits.json").read_text())["report"])
