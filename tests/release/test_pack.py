from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.data.checks import DataError
from tools.release.bundle import Bundle
from tools.release.check_files import check_pages
from tools.release.hashes import sha256_of
from tools.release.pack import PACKED_PATH, SOURCE_PATH, pack, packed_files
from tools.release.usage import commands_page

REPOSITORY = Path(__file__).resolve().parents[2]
# Runs where no repository is on the path, and refuses what the metadata do not require.
PRELUDE = """
import sys
sys.modules.update(dict.fromkeys({undeclared}))  # with None for a module its import fails, as if it were not installed
"""
UNDECLARED = ("tools", "deepatlas", "pyvista", "matplotlib", "skimage", "pandas", "sklearn", "ants")


def isolated(code: str, cwd: Path, *arguments: object) -> str:
    """Output of a Python process far from the repository."""
    command = [sys.executable, "-W", "ignore", "-c", PRELUDE.format(undeclared=UNDECLARED) + code, *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, (result.stdout + result.stderr)[-4000:]
    return result.stdout


@pytest.fixture(scope="module")
def unpacked(archive, tmp_path_factory) -> Path:
    """A folder with the unpacked archive in it."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    return folder


def test_two_checkouts_give_the_same_bytes(bundle, tmp_path):
    archives = []
    for name in ("first", "second/deeper"):
        folder = tmp_path / name
        shutil.copytree(bundle, folder / "bundles" / "deepatlas")
        shutil.copytree(REPOSITORY / "tools", folder / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        archives.append(pack(folder / "bundles" / "deepatlas", folder / "dist", shared=folder / "tools"))
    # what running, editing and copying leave behind
    second = tmp_path / "second/deeper"
    (second / "bundles/deepatlas/output").mkdir()
    (second / "bundles/deepatlas/output/left.txt").write_text("x")
    (second / "tools/__pycache__").mkdir()
    (second / "tools/__pycache__/x.pyc").write_bytes(b"x")
    for path in (second / "bundles").rglob("*.json"):
        path.chmod(0o600)
        os.utime(path, (1, 1))
    again = pack(second / "bundles/deepatlas", second / "again", shared=second / "tools")
    assert len({sha256_of(path) for path in (*archives, again)}) == 1


def test_what_an_archive_holds(archive, bundle):
    assert archive.name == "deepatlas_v0.1.0.zip"
    with zipfile.ZipFile(archive) as opened:
        names = opened.namelist()
        assert names == sorted(names)
        assert {entry.date_time for entry in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.external_attr >> 16 for entry in opened.infolist()} == {0o100644}
        config = opened.read("deepatlas/configs/train.json").decode()
    tops = {name.split("/")[1] for name in names}
    assert tops == {"LICENSE", "configs", "docs", "models", "deepatlas_0_1_0", "deepatlas_tools_0_1_0"}
    assert "deepatlas/deepatlas_tools_0_1_0/bundle/locate.py" in names or "deepatlas/deepatlas_tools_0_1_0/bundle/overrides.py" in names
    assert not [name for name in names if "commands.py" in name or "/release/" in name]
    # of a package only what the bundle stands on: reading points, and no shape model
    assert [name.rsplit("/", 1)[1] for name in names if "/shape/" in name] == ["__init__.py", "particles.py"]
    assert json.loads(config)["imports"][1] == PACKED_PATH
    assert json.dumps(SOURCE_PATH) not in config
    assert "/.." not in config
    source = (bundle / "configs/train.json").read_text()
    assert config.count("\n") == source.count("\n")


def test_nothing_refers_to_the_old_names(unpacked):
    root = unpacked / "deepatlas"
    for path in (*root.rglob("*.py"), *(root / "configs").rglob("*.json")):
        text = path.read_text()
        for old in ("from tools", "import tools", "from deepatlas.", "import deepatlas.", '"deepatlas.', '"tools.', "`tools.", "$tools."):
            assert old not in text, f"{path}: {old}"


def test_pages_speak_of_the_archive(unpacked):
    page = (unpacked / "deepatlas/docs/README.md").read_text()
    assert "](commands.md)" in page
    assert "bundles/deepatlas/" not in page
    assert "--bundle_root deepatlas --config_file deepatlas/configs/inference.json" in page
    assert "'deepatlas_tools_0_1_0.losses.GlobalNCCLoss'" in page
    commands = (unpacked / "deepatlas/docs/commands.md").read_text()
    assert "pip install" in commands
    assert commands.count("python -m monai.bundle run") == 4
    assert "begin with `python -m tools`, here and in `README.md`, need a clone of the repository" in commands
    assert "particles" not in commands


def test_commands_say_what_the_data_folder_is():
    page = commands_page(Bundle.read(REPOSITORY / "bundles" / "multidomain_segmentation"))
    assert "`DIR` is a folder of data sets, each a domain and itself a folder as in the Medical Segmentation Decathlon" in page
    assert "`DIR` is a folder as in the Medical" in commands_page(Bundle.read(REPOSITORY / "bundles" / "deepatlas"))


@pytest.mark.parametrize("name", ["deepatlas", "multidomain_segmentation", "progressive_deepssm"])
def test_pages_of_the_collection_name_no_folder_of_the_repository(name):
    files = packed_files(Bundle.read(REPOSITORY / "bundles" / name), REPOSITORY / "tools")
    assert list(check_pages(name, {path: content for path, content in files.items() if path.endswith(".md")})) == []


def test_commands_name_the_particles_of_a_shape_model():
    page = commands_page(Bundle.read(REPOSITORY / "bundles" / "progressive_deepssm"))
    assert "To train, `DIR` also holds `particles/`" in page


FLOW = """
import csv, os, pathlib
from monai.bundle import run
root, data, out = map(pathlib.Path, sys.argv[1:])
def call(run_id, *names, **overrides):
    files = [str(root / "configs" / (name + ".json")) for name in names]
    run(run_id=run_id, config_file=files, meta_file=str(root / "configs" / "metadata.json"), logging_file=False,
        **{key: str(value) if isinstance(value, pathlib.Path) else value for key, value in overrides.items()})
tiny = {"registration_channels": [8] * 4, "registration_hidden": [8] * 4, "segmentation_channels": [8] * 4, "precision": "float32",
        "device": "cpu", "progress_bar": False, "size": [32, 32, 32]}
quick = {"epochs": 1, "epoch_length": 3, "pairs": 1, "holdout": 2, "validation_interval": 1}
call("training", "train", dataset_dir=data, output_dir=out / "model", **quick, **tiny)
call("run", "inference", dataset_dir=data, model_dir=out / "model", output_dir=out / "seg")
call("evaluating", "train", "evaluate", dataset_dir=data, model_dir=out / "model", output_dir=out / "eval", **tiny)
images = sorted((data / "imagesTr").glob("*.nii.gz"))
with open(out / "pairs.csv", "w", newline="") as stream:
    csv.writer(stream).writerows([["fixed", "moving"], [images[0], images[1]]])
call("run", "register", pairs=out / "pairs.csv", model_dir=out / "model", output_dir=out / "reg", precision="float32")
assert str(pathlib.Path(sys.modules["deepatlas_0_1_0"].__file__).parents[1]) == str(root.resolve())
"""


def test_an_archive_trains_predicts_evaluates_and_registers_alone(unpacked, phantoms, tmp_path):
    # what lies in the current folder comes first on the path
    for name in ("tools", "deepatlas"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')")
    isolated(FLOW, tmp_path, unpacked / "deepatlas", phantoms, tmp_path)
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {"model.pt", "registration.pt", "plan.json", "splits.json"}
    assert len(list((tmp_path / "seg").glob("*_seg.nii.gz"))) == 5
    assert json.loads((tmp_path / "eval/summary.json").read_text())["metrics"]
    assert len(list((tmp_path / "reg").glob("*_ddf.nii.gz"))) == 1


LOADING = """
import pathlib
from monai.bundle import ConfigWorkflow, create_workflow, load
first, second, data = map(pathlib.Path, sys.argv[1:])

def made(network):
    return type(network).__module__.split(".")[0]

# the current folder is the one above the first bundle
assert made(load("deepatlas", bundle_dir=".", source="github", workflow_type="inference")) == "deepatlas_tools_0_1_0"
assert made(load("deepatlas", bundle_dir=str(second.parent), source="github", workflow_type="train")) == "deepatlas_tools_0_2_0"
options = {"workflow_type": "inference", "dataset_dir": str(data), "logging_file": False}
for root, version in ((first, "0_1_0"), (second, "0_2_0"), (first, "0_1_0")):
    configs = root / "configs"
    direct = ConfigWorkflow(config_file=str(configs / "inference.json"), meta_file=str(configs / "metadata.json"), **options)
    direct.initialize()
    assert made(direct.network_def) == f"deepatlas_tools_{version}", version
    other = create_workflow("ConfigWorkflow", config_file=str(configs / "inference.json"), **options)
    assert other.bundle_root == str(root.resolve())
    assert made(other.network_def) == f"deepatlas_tools_{version}", version
    assert len(other.dataset) == 5
assert not hasattr(sys.modules["deepatlas_0_1_0"], "GENERATION")
assert sys.modules["deepatlas_0_2_0"].GENERATION == 2
"""


def test_two_versions_in_one_process_run_their_own_code(unpacked, new_bundle, phantoms, tmp_path):
    newer = new_bundle(tmp_path / "source", version="0.2.0")
    with open(newer / "deepatlas" / "__init__.py", "a") as stream:
        stream.write("\nGENERATION = 2\n")
    with zipfile.ZipFile(pack(newer, tmp_path)) as opened:
        opened.extractall(tmp_path / "newer")
    isolated(LOADING, unpacked, unpacked / "deepatlas", tmp_path / "newer" / "deepatlas", phantoms)


def broken(bundle: Path, folder: Path, name: str, change) -> Path:
    """A copy of the bundle's folder with one file changed."""
    copy = folder / "deepatlas"
    shutil.copytree(bundle, copy)
    path = copy / name
    path.write_text(change(path.read_text() if path.exists() else ""))
    return copy


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("configs/metadata.json", lambda t: t.replace('"0.1.0"', '"0.1"'), "version '0.1'"),
        ("configs/inference.json", lambda t: t.replace("tools.data.plan.Plan", "tools.data.plans.Plan"), "inference.json: _target_"),
        ("configs/inference.json", lambda t: t.replace("$@evaluator.run()", "$@evaluator.run("), "inference.json: the expression"),
        ("configs/inference.json", lambda t: t.replace("'/output'", "'/../output'"), "leads out of the bundle"),
        ("configs/extra.yaml", lambda t: "a: 1", "configs of a release are JSON"),
        ("deepatlas/extra.py", lambda t: "def f(:", "extra.py: no Python"),
        ("notes.txt", lambda t: "x", "notes.txt: no part of a bundle"),
    ],
)
def test_what_cannot_be_packed(bundle, tmp_path, name, change, message):
    with pytest.raises(DataError, match=message):
        pack(broken(bundle, tmp_path, name, change), tmp_path / "dist")
    assert not list(tmp_path.glob("dist/*"))


def test_links_are_not_packed(bundle, tmp_path):
    copy = broken(bundle, tmp_path, "docs/page.md", lambda t: "x")
    (copy / "docs" / "link.md").symlink_to("page.md")
    with pytest.raises(DataError, match=r"link.md: a link"):
        pack(copy, tmp_path / "dist")


@pytest.mark.parametrize("name", ["deep_version", "Deep", "deep-atlas"])
def test_names_that_cannot_be(tmp_path, bundle, name):
    shutil.copytree(bundle, tmp_path / name)
    with pytest.raises(DataError, match="bundle name"):
        pack(tmp_path / name, tmp_path / "dist")
