"""MONAI Label itself, with all packed bundles at once, asked over HTTP as 3D Slicer asks."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from random_models import random_deepatlas

from tools.data.checks import read_nifti
from tools.data.decathlon import read_dataset
from tools.data.files import write_nifti
from tools.data.phantoms import write_phantoms
from tools.label.environment import label_environment

pytestmark = pytest.mark.label

REPOSITORY = Path(__file__).resolve().parents[2]
NAMES = ["deepatlas", "multidomain_segmentation", "progressive_deepssm"]
START = 600  # seconds until the server answers, on a slow machine
SETTLED = 60  # seconds until the server's file watcher has seen what came or went
# Of the cases the weights were trained on, the last one for the atlas; of the knees only the first one was.
HIPPOCAMPI = ["hippocampus_003", "hippocampus_004", "hippocampus_007", "hippocampus_011", "hippocampus_014"]
KNEES = ["knee_001", "knee_000", "knee_002"]


class ServerError(AssertionError):
    """The server refused; ``code`` is the status of its answer."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Server:
    """The server's address, its studies, its log, and the true labels of the studies: name to file."""

    url: str
    studies: Path
    log: Path
    labels: dict[str, Path]

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str | None = None, **query: Any) -> bytes:
        """The content of an answer; anything but 200 is an error, with what the server's log says of it."""
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": kind} if kind else {})
        try:
            with urllib.request.urlopen(request, timeout=3600) as answer:
                assert answer.status == 200
                return answer.read()
        except urllib.error.HTTPError as error:
            raise ServerError(f"{method} {path}: {error}\n{self.log.read_text()[-4000:]}", error.code) from error

    def info(self) -> dict[str, Any]:
        """What the server says of itself."""
        return json.loads(self.ask("GET", "/info/"))

    def infer(self, model: str, case: str, folder: Path, **options: Any) -> nib.Nifti1Image:
        """A model's answer to a case."""
        form = urllib.parse.urlencode({"params": json.dumps(options)}).encode()
        content = self.ask("POST", f"/infer/{model}", form, "application/x-www-form-urlencoded", image=case, output="image")
        path = folder / f"{model}_{case}.nii.gz"
        path.write_bytes(content)
        return nib.load(path)

    def post_label(self, case: str, file: Path) -> None:
        """Hand over a label as done by an annotator."""
        boundary = uuid.uuid4().hex
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="label"; filename="{file.name}"\r\n\r\n'
        body = head.encode() + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        answer = json.loads(self.ask("PUT", "/datastore/label", body, f"multipart/form-data; boundary={boundary}", image=case, tag="final"))
        assert answer["image"] == case

    def delete_label(self, case: str) -> None:
        """Take back a label."""
        self.ask("DELETE", "/datastore/label", id=case, tag="final")

    def wait_for_labels(self, cases: set[str]) -> None:
        """Wait until the cases with a label are these, and stay these for a second."""
        end, since = time.monotonic() + SETTLED, None
        while since is None or time.monotonic() < since + 1:
            found = self.labelled()
            since = (since or time.monotonic()) if found == cases else None
            assert time.monotonic() < end, f"labels of {found and sorted(found)}, not of {sorted(cases)}\n{self.log.read_text()[-4000:]}"
            time.sleep(0.1)

    def labelled(self) -> set[str] | None:
        """The cases with a label; None where MONAI Label 0.8.5 fails to say, as its watcher rewrites the list and there is no lock."""
        try:
            answer = self.ask("GET", "/datastore/", output="train")
        except ServerError as error:
            if error.code == 500:
                return None
            raise
        return {Path(entry["label"]).name.split(".")[0] for entry in json.loads(answer)}

    def train(self, model: str) -> None:
        """One epoch, with all options that the server offers, as 3D Slicer sends them."""
        offered = self.info()["trainers"][model]["config"]
        options = {key: value[0] if isinstance(value, list) else value for key, value in offered.items()}
        body = json.dumps({**options, "max_epochs": 1}).encode()
        self.ask("POST", f"/train/{model}", body, "application/json", run_sync="true", enqueue="false")


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    """The server with all bundles, on phantoms and, where there are any, on hippocampi."""
    folder = tmp_path_factory.mktemp("label")
    studies, labels = folder / "studies", {}
    studies.mkdir()
    # the first of the phantoms that the shipped weights were trained on
    sets = [(write_phantoms(folder / "knee", "knee", cases=3, seed=2), KNEES)]
    options: list[str] = []
    real = REPOSITORY.parent / "shared" / "data" / "hippocampus"
    if real.is_dir():
        sets.append((real, HIPPOCAMPI[:-1]))
        options = ["--atlas", ",".join(str(real / images / f"{HIPPOCAMPI[-1]}.nii.gz") for images in ("imagesTr", "labelsTr"))]
    for root, names in sets:
        for case in read_dataset(root).cases:
            if case.name in names:
                shutil.copyfile(case.image, studies / f"{case.name}.nii.gz")
                labels[case.name] = case.label
    with serving(folder, studies, labels, *options) as made:
        yield made


@contextmanager
def serving(folder: Path, studies: Path, labels: dict[str, Path], *options: str) -> Iterator[Server]:
    """``python -m tools label`` with these options, called in ``folder``, where its app and its log lie then."""
    label_environment()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "tools",
        "label",
        "--studies",
        str(studies),
        "--port",
        str(port),
        *options,
    ]
    log = folder / "server.log"
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPOSITORY)}
    with open(log, "wb") as stream, subprocess.Popen(command, cwd=folder, env=environ, stdout=stream, stderr=stream) as process:
        try:
            made = Server(f"http://127.0.0.1:{port}", studies, log, labels)
            _wait(made, process)
            yield made
        finally:
            process.terminate()


def _wait(server: Server, process: subprocess.Popen) -> None:
    end = time.monotonic() + START
    while True:
        try:
            server.info()
            return
        except OSError:
            assert process.poll() is None, server.log.read_text()[-4000:]
            assert time.monotonic() < end, server.log.read_text()[-4000:]
            time.sleep(1)


def has(server: Server, case: str) -> None:
    if case not in server.labels:
        pytest.skip("no hippocampi in ../shared")


def same_grid(answer: nib.Nifti1Image, server: Server, case: str) -> bool:
    image = nib.load(server.studies / f"{case}.nii.gz")
    return answer.shape == image.shape and np.allclose(answer.affine, image.affine, atol=1e-4)


def truth(server: Server, case: str, names: dict[str, int], dataset_labels: dict[int, str]) -> np.ndarray:
    """The true label in the label values that the server has for these names."""
    label = np.asarray(nib.load(server.labels[case]).dataobj)
    result = np.zeros(label.shape, np.uint8)
    for value, name in dataset_labels.items():
        result[label == value] = names[name.lower()] if value else 0
    return result


def dice(a: np.ndarray, b: np.ndarray) -> dict[int, float]:
    values = sorted(set(np.unique(b)) - {0})
    return {int(v): float(2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum())) for v in values}


def good(answer: nib.Nifti1Image, expected: np.ndarray) -> None:
    found = np.asarray(answer.dataobj)
    assert set(np.unique(found)) == set(np.unique(expected))
    assert min(dice(found, expected).values()) > 0.8


HIPPOCAMPUS = {0: "background", 1: "anterior", 2: "posterior"}
KNEE = {0: "background", 1: "femur", 2: "tibia", 3: "patella"}


def test_all_bundles_are_served(server):
    info = server.info()
    served = set(NAMES) | ({"deepatlas_atlas"} if HIPPOCAMPI[0] in server.labels else set())
    assert info["version"] == "0.8.5"
    assert set(info["models"]) == served
    assert {"deepatlas", "multidomain_segmentation"} <= set(info["trainers"])
    for name in NAMES:
        metadata = json.loads((REPOSITORY / "bundles" / name / "configs" / "metadata.json").read_text())
        (output,) = metadata["network_data_format"]["outputs"].values()
        expected = {label: int(value) for value, label in output["channel_def"].items() if label != "background"}
        assert info["models"][name]["labels"] == expected
        assert info["models"][name]["version"] == metadata["version"]


@pytest.mark.parametrize("model", ["deepatlas", "deepatlas_atlas", "progressive_deepssm"])
def test_hippocampi(server, tmp_path, model):
    case = HIPPOCAMPI[0]
    has(server, case)
    answer = server.infer(model, case, tmp_path)
    assert same_grid(answer, server, case)
    good(answer, truth(server, case, server.info()["models"][model]["labels"], HIPPOCAMPUS))


@pytest.mark.parametrize("options", [{}, {"image_domain": "knee"}], ids=["found", "named"])
def test_a_domain_found_and_named(server, tmp_path, options):
    answer = server.infer("multidomain_segmentation", KNEES[0], tmp_path, **options)
    assert same_grid(answer, server, KNEES[0])
    good(answer, truth(server, KNEES[0], server.info()["models"]["multidomain_segmentation"]["labels"], KNEE))


@pytest.fixture
def post_labels(server) -> Iterator[Callable[[dict[str, Path]], None]]:
    """Hands over labels, and takes them back when the test is done: each model numbers structures in its own way.

    One at a time: the server learns from a watcher of its files what came or went, and knows no case while it does.
    """
    posted: list[str] = []

    def post(labels: dict[str, Path]) -> None:
        for case, file in labels.items():
            server.post_label(case, file)
            posted.append(case)
            server.wait_for_labels(set(posted))

    yield post
    while posted:
        server.delete_label(posted.pop())
        server.wait_for_labels(set(posted))


def test_the_next_sample_is_one_without_a_label(server, post_labels):
    names = sorted(path.name for path in server.studies.glob("*.nii.gz"))
    post_labels({KNEES[2]: server.labels[KNEES[2]]})
    assert json.loads(server.ask("POST", "/activelearning/first"))["name"] == names[0]
    for _ in range(5):
        assert json.loads(server.ask("POST", "/activelearning/random"))["name"] in set(names) - {f"{KNEES[2]}.nii.gz"}


def trained(server: Server, model: str, case: str, expected: np.ndarray, folder: Path) -> None:
    """Train, and see that the answers come from new weights and are still good."""
    weights = server.log.parent / "monailabel" / "model" / model / "models" / "model.pt"
    before = weights.read_bytes()
    begin = server.log.stat().st_size
    server.train(model)
    with open(server.log, encoding="utf-8") as stream:
        stream.seek(begin)
        assert stream.read().count("training: epoch 1/1") == 1
    assert weights.read_bytes() != before
    answer = server.infer(model, case, folder)
    assert same_grid(answer, server, case)
    good(answer, expected)


def test_deepatlas_learns_from_posted_labels(server, post_labels, tmp_path):
    case = HIPPOCAMPI[0]
    has(server, case)
    expected = truth(server, case, server.info()["models"]["deepatlas"]["labels"], HIPPOCAMPUS)
    post_labels({name: server.labels[name] for name in HIPPOCAMPI[:3]})
    trained(server, "deepatlas", case, expected, tmp_path)


def test_one_domain_learns_from_a_posted_label(server, post_labels, tmp_path):
    """Its label has the values of the union, as the server names them; the other domains' parts of the network stay as they are."""
    names = server.info()["models"]["multidomain_segmentation"]["labels"]
    expected = truth(server, KNEES[0], names, KNEE)
    corrected = tmp_path / "corrected.nii.gz"
    nib.save(nib.Nifti1Image(expected, nib.load(server.labels[KNEES[0]]).affine), corrected)
    other = HIPPOCAMPI[0] if HIPPOCAMPI[0] in server.labels else None
    before = other and np.asarray(server.infer("multidomain_segmentation", other, tmp_path, image_domain="hippocampus").dataobj)
    post_labels({KNEES[0]: corrected})
    trained(server, "multidomain_segmentation", KNEES[0], expected, tmp_path)
    if other:
        after = np.asarray(server.infer("multidomain_segmentation", other, tmp_path, image_domain="hippocampus").dataobj)
        assert np.array_equal(before, after)


def test_a_model_of_ones_own_is_served_and_learns(tmp_path):
    """Its answers have the label values of its data, which have gaps, and so have the labels it learns from."""
    studies = tmp_path / "studies"
    studies.mkdir()
    labels = {}
    for case in read_dataset(write_phantoms(tmp_path / "knee", "knee", cases=2, seed=2)).cases:
        shutil.copyfile(case.image, studies / f"{case.name}.nii.gz")
        label, affine = read_nifti(case.label)
        labels[case.name] = tmp_path / f"{case.name}.nii.gz"
        write_nifti(labels[case.name], np.choose(label.astype(int), [0, 2, 5, 0]).astype(np.uint8), affine)
    (tmp_path / "OUT").mkdir()
    trained = random_deepatlas(tmp_path / "OUT")
    with serving(tmp_path, studies, labels, "--bundles", "deepatlas", "--model_dir", str(trained)) as own:
        info = own.info()["models"]
        assert {name: about["labels"] for name, about in info.items()} == {"deepatlas": {"core": 2, "shell": 5}}
        for k, (case, file) in enumerate(labels.items()):
            own.post_label(case, file)
            own.wait_for_labels(set(list(labels)[: k + 1]))
        own.train("deepatlas")
        (case, *_) = labels
        answer = own.infer("deepatlas", case, tmp_path)
        assert same_grid(answer, own, case)
        assert set(np.unique(answer.dataobj)) <= {0, 2, 5}
    assert (tmp_path / "monailabel" / "model" / "deepatlas" / "models" / "model.pt").read_bytes() != (trained / "model.pt").read_bytes()
