"""Packed bundles where there is no repository: the packages that the metadata name, an old and a new NumPy, any current folder."""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from environments import environment
from phantom_runs import BUNDLES, CHOICES, QUICK, dataset_of, write_data

from tools.release.bundle import Bundle
from tools.release.pack import pack
from tools.release.usage import requirements, run_commands

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
OLD_NUMPY = "1.26.4"
WAYS = """
import json, pathlib, sys
import numpy
from monai.bundle import ConfigWorkflow, create_workflow, load

root, name, output, repository, options = pathlib.Path(sys.argv[1]), *sys.argv[2:5], json.loads(sys.argv[5])
load(name, bundle_dir=str(root / ".."), source="github", workflow_type="inference")
config = str(root / "configs" / "inference.json")
workflow = ConfigWorkflow(config_file=config, workflow_type="inference", output_dir=output + "/workflow", **options)
workflow.run()
workflow = create_workflow("ConfigWorkflow", config_file=config, workflow_type="inference", output_dir=output + "/created", **options)
workflow.run()
files = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
print(json.dumps({
    "own": [module.__file__ for key, module in sys.modules.items() if key.startswith(name) and getattr(module, "__file__", None)],
    "numpy": numpy.__version__,
    "repository": [file for file in files if pathlib.Path(file).is_relative_to(repository)],
}))
"""


def outside(command: list[str], cwd: Path) -> str:
    """Output of a process that finds nothing by PYTHONPATH."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, f"{shlex.join(command)}\n{(result.stdout + result.stderr)[-4000:]}"
    return result.stdout


def as_options(overrides: dict[str, Any]) -> list[str]:
    """Overrides as a command line has them."""
    return [part for key, value in overrides.items() for part in (f"--{key}", str(value))]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Phantoms of two joints, and ``pairs.csv``."""
    folder = write_data(tmp_path_factory.mktemp("data"))
    images = sorted((folder / "knee" / "imagesTr").iterdir())
    with open(folder / "pairs.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["fixed", "moving"], [images[0], images[1]]])
    return folder


def pins(bundle: Bundle, numpy: str) -> set[str]:
    """What a bundle requires, with this NumPy."""
    return {f"numpy=={numpy}", *(item for item in requirements(bundle) if not item.startswith("numpy"))}


def python_of(bundle: Bundle, numpy: str) -> Path:
    """An interpreter with what a packed bundle requires. What all bundles require is large, and installed once."""
    common = set.intersection(*(pins(Bundle.read(REPOSITORY / "bundles" / name), numpy) for name in BUNDLES))
    base = environment("base", sorted(common))
    own = sorted(pins(bundle, numpy) - common)
    return (environment(bundle.name, own, base) if own else base) / "bin" / "python"


@pytest.mark.parametrize("numpy", ["new", "old"])
@pytest.mark.parametrize("name", BUNDLES)
def test_a_packed_bundle_works_alone(name, numpy, data, tmp_path):
    """Every command and way from one current folder a case; over the six cases each runs in all three of them."""
    with zipfile.ZipFile(pack(REPOSITORY / "bundles" / name, tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked")
    root, empty, out = tmp_path / "unpacked" / name, tmp_path / "empty", tmp_path / "out"
    empty.mkdir()
    bundle = Bundle.read(root)
    version = bundle.metadata["numpy_version"] if numpy == "new" else OLD_NUMPY
    python = python_of(bundle, version)
    turn = 2 * BUNDLES.index(name) + (numpy == "old")
    places = [empty, root.parent, root, empty, root.parent][turn % 3 :]

    def command(config: str, place: Path, given: dict[str, Any], *options: str) -> None:
        """One of the commands of the bundle's page."""
        folder = os.path.relpath(root, place)
        (text,) = (
            text
            for _, text in run_commands(bundle, folder)
            if f"/{config}.json" in text and ("/evaluate" in text) == (config == "evaluate")
        )
        values = {
            "python": python,
            "DIR": dataset_of(name, data),
            "MODEL": out / "model",
            "OUT": out / config,
            "pairs.csv": data / "pairs.csv",
        }
        words = [str(values.get(word, word)) for word in shlex.split(text)]
        root_given = ["--bundle_root", folder] if config in ("train", "evaluate") else []
        outside([*words, *root_given, *as_options(given), *options], place)

    command("train", places[0], QUICK[name])
    model = {"model_dir": str(out / "model")}
    command("inference", places[1], {**model, **CHOICES[name]})
    command("evaluate", places[2], model)
    if name == "deepatlas":
        command("register", places[0], model)
        assert len(list((out / "register").glob("*_ddf.nii.gz"))) == 1
    assert json.loads((out / "evaluate" / "summary.json").read_text())["metrics"]

    options = json.dumps({"dataset_dir": str(dataset_of(name, data)), **model, **CHOICES[name]})
    place = places[1]
    arguments = [os.path.relpath(root, place), name, str(out), str(REPOSITORY), options]
    answer = json.loads(outside([str(python), "-c", WAYS, *arguments], place).splitlines()[-1])
    assert answer["numpy"] == version
    assert answer["repository"] == []
    assert len(answer["own"]) > 2
    assert all(Path(file).resolve().is_relative_to(root) for file in answer["own"])
    predicted = {path.name: np.asarray(nib.load(path).dataobj) for path in (out / "inference").glob("*_seg.nii.gz")}
    assert len(predicted) == 6
    for way in ("workflow", "created"):
        same = {path.name: np.asarray(nib.load(path).dataobj) for path in (out / way).glob("*_seg.nii.gz")}
        assert same.keys() == predicted.keys()
        assert all(np.array_equal(values, predicted[file]) for file, values in same.items())
    assert not list(empty.iterdir())
    assert not (root / "output").exists()
