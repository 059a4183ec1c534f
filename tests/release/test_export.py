"""ONNX files answer as the networks do; what cannot be exported is refused in one line, and nothing is written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundle_runs import REPOSITORY
from random_models import DEEPATLAS, MULTIDOMAIN, SHAPES, random_deepatlas, random_multidomain, random_shapes
from torch import nn

from tools.bundle.checkpoint import load_weights
from tools.data.checks import DataError
from tools.data.plan import Plan
from tools.release import export as module
from tools.release.archive import unpack
from tools.release.bundle import Bundle
from tools.release.export import TOLERANCE, Export, compare, export, read_export
from tools.release.isolation import isolated


@pytest.fixture(scope="module")
def deepatlas_model(tmp_path_factory) -> Path:
    return random_deepatlas(tmp_path_factory.mktemp("deepatlas"))


@pytest.fixture(scope="module")
def multidomain_model(tmp_path_factory) -> Path:
    return random_multidomain(tmp_path_factory.mktemp("multidomain"))


@pytest.fixture(scope="module")
def shape_model(tmp_path_factory) -> Path:
    return random_shapes(tmp_path_factory.mktemp("shapes"))


def run(path: Path, **inputs: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})


def assert_same(answers: Sequence[np.ndarray], expected: Sequence[torch.Tensor]) -> None:
    """Within 1e-4 of the largest value, which is not zero."""
    assert len(answers) == len(expected)
    for answer, tensor in zip(answers, expected):
        scale = float(tensor.abs().max())
        assert scale > 0
        np.testing.assert_allclose(answer, tensor.numpy(), rtol=0, atol=1e-4 * scale)


def properties(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


@torch.no_grad()
def test_segmentation_of_deepatlas(deepatlas_model, tmp_path):
    from deepatlas.networks import segmentation_from_plan

    path = tmp_path / "out" / "segmentation.onnx"
    found = export(DEEPATLAS.root, path, model_dir=deepatlas_model)
    assert len({answer.shape for answer in found}) == 2
    assert all(answer.output == "pred" and answer.difference <= TOLERANCE for answer in found)
    network = load_weights(deepatlas_model / "model.pt", segmentation_from_plan(Plan.load(deepatlas_model / "plan.json")))
    for shape in ((1, 1, 32, 32, 48), (2, 1, 64, 32, 32)):
        image = torch.rand(shape)
        assert_same(run(path, image=image), [network(image)])
    told = properties(path)
    assert (told["bundle"], told["version"], told["network"]) == ("deepatlas", DEEPATLAS.metadata["version"], "segmentation")
    assert json.loads(told["outputs"])["pred"]["labels"] == {"0": "background", "2": "core", "5": "shell"}
    assert list(json.loads(told["inputs"])) == ["image"]
    assert json.loads(told["plan"])["size"] == [32, 32, 32]
    assert "licence" not in told
    assert str(REPOSITORY).encode() not in path.read_bytes()


@torch.no_grad()
def test_registration(deepatlas_model, tmp_path):
    from deepatlas.networks import registration_from_plan

    path = tmp_path / "registration.onnx"
    export(DEEPATLAS.root, path, "registration", deepatlas_model)
    network = load_weights(deepatlas_model / "registration.pt", registration_from_plan(Plan.load(deepatlas_model / "plan.json")))
    for shape in ((1, 1, 32, 48, 32), (1, 1, 48, 32, 64)):
        fixed, moving = torch.rand(2, *shape)
        expected = network(fixed, moving)
        assert float(expected.ddf.abs().max()) > 0.1
        assert_same(run(path, fixed=fixed, moving=moving), [expected.ddf, expected.field])


@pytest.mark.parametrize(("name", "labels"), [("segmentation", {"0": "background", "1": "ring", "4": "core"}), ("union", None)])
@torch.no_grad()
def test_a_domain(multidomain_model, tmp_path, name, labels):
    """As the config's ``network_def`` answers with that ``domain``."""
    path = tmp_path / "ring.onnx"
    export(MULTIDOMAIN.root, path, name, multidomain_model, domain="ring")
    made = MULTIDOMAIN.workflow("inference", kind="infer", model_dir=str(multidomain_model), domain="ring", precision="float32")
    network = load_weights(multidomain_model / "model.pt", made.network_def)
    for shape in ((1, 1, 32, 48), (11, 1, 64, 32)):  # more than the network computes at once
        image = torch.rand(shape)
        expected = network(image, "ring") if labels else network(image)
        answer = run(path, image=image)
        assert_same([answer[0][:, [0]]], [expected[:, [0]]])
        assert_same(answer, [expected])
    union = {"0": "background", "1": "core", "2": "shell", "3": "ring"}
    assert json.loads(properties(path)["outputs"])["pred"]["labels"] == (labels or union)


@torch.no_grad()
def test_points(shape_model, tmp_path):
    from progressive_deepssm.networks import network_from_plan

    path = tmp_path / "shape.onnx"
    export(SHAPES.root, path, "shape", shape_model)
    network = load_weights(shape_model / "model.pt", network_from_plan(Plan.load(shape_model / "plan.json")))
    for batch in (1, 2):
        image = torch.rand(batch, 1, 32, 48, 32)
        expected = network.shape(image)
        assert expected.points[-1].shape == (batch, 16, 3)
        assert_same(run(path, image=image), [expected.points[-1], expected.uncertainty, network(image)])


@torch.no_grad()
def test_segmentation_of_a_shape_network(shape_model, tmp_path):
    path = tmp_path / "segmentation.onnx"
    found = export(SHAPES.root, path, model_dir=shape_model)
    assert [answer.shape for answer in found] == [(1, 1, 32, 48, 32), (2, 1, 32, 48, 32)]


@pytest.mark.parametrize("bundle", [DEEPATLAS, SHAPES])
def test_shipped_weights(bundle, tmp_path):
    found = export(bundle.root, tmp_path / "net.onnx", "segmentation" if bundle is DEEPATLAS else "shape")
    assert max(answer.difference for answer in found) <= TOLERANCE
    assert "CC-BY-SA 4.0" in properties(tmp_path / "net.onnx")["licence"]


@pytest.fixture
def copy(tmp_path) -> Path:
    """The bundle's configs and package, without weights."""
    return Path(shutil.copytree(DEEPATLAS.root, tmp_path / "deepatlas", ignore=shutil.ignore_patterns("models", "docs", "output")))


def test_a_file_of_another_kind(tmp_path):
    with pytest.raises(DataError, match=r"net\.pt: an ONNX file ends in \.onnx"):
        export(DEEPATLAS.root, tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match=f"export needs the package {name}: pip install onnx onnxscript onnxruntime"):
        export(DEEPATLAS.root, tmp_path / "net.onnx")


def test_an_unknown_network(tmp_path):
    with pytest.raises(DataError, match="unknown network 'registering', the nearest is 'registration'"):
        export(DEEPATLAS.root, tmp_path / "net.onnx", "registering")


def test_a_bundle_that_exports_nothing(copy, tmp_path):
    (copy / "configs" / "export.json").unlink()
    with pytest.raises(DataError, match=r"export\.json: missing"):
        export(copy, tmp_path / "net.onnx")


def test_missing_weights(deepatlas_model, tmp_path):
    (tmp_path / "model").mkdir()
    shutil.copy(deepatlas_model / "plan.json", tmp_path / "model")
    with pytest.raises(DataError, match=r"model\.pt: no such weights"):
        export(DEEPATLAS.root, tmp_path / "net.onnx", model_dir=tmp_path / "model")
    assert not (tmp_path / "net.onnx").exists()


def test_weights_of_another_network(deepatlas_model, tmp_path):
    shutil.copytree(deepatlas_model, tmp_path / "model")
    shutil.copy(deepatlas_model / "registration.pt", tmp_path / "model" / "model.pt")
    with pytest.raises(DataError, match=r"model\.pt: not the weights of this network"):
        export(DEEPATLAS.root, tmp_path / "net.onnx", model_dir=tmp_path / "model")


def test_no_plan(tmp_path):
    with pytest.raises(DataError, match=r"plan\.json: missing"):
        export(DEEPATLAS.root, tmp_path / "net.onnx", model_dir=tmp_path)


def test_a_network_that_cannot_be_built(deepatlas_model, copy, tmp_path):
    config = copy / "configs" / "export.json"
    config.write_text(config.read_text().replace("@labels", "$1 / 0"))
    with pytest.raises(DataError, match=r"deepatlas: segmentation cannot be built \(ZeroDivisionError: division by zero\)"):
        export(copy, tmp_path / "net.onnx", model_dir=deepatlas_model)


def test_a_domain_where_there_are_none(tmp_path):
    with pytest.raises(DataError, match="knows no domains, leave --domain away"):
        export(DEEPATLAS.root, tmp_path / "net.onnx", domain="knee")


@pytest.mark.parametrize("network", ["segmentation", "union"])
def test_a_domain_must_be_named(multidomain_model, tmp_path, network):
    with pytest.raises(DataError, match="a graph is of one domain, name it: --domain disc or ring"):
        export(MULTIDOMAIN.root, tmp_path / "net.onnx", network, multidomain_model)


def test_an_unknown_domain(multidomain_model, tmp_path):
    with pytest.raises(DataError, match="unknown domain 'rign', the nearest is 'ring'"):
        export(MULTIDOMAIN.root, tmp_path / "net.onnx", model_dir=multidomain_model, domain="rign")


class Noise(nn.Module):
    """Never answers the same twice."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + torch.rand_like(image)


class Branch(nn.Module):
    """Decides by what it sees, which a graph cannot."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image if float(image.mean()) > 0.5 else -image


def tiny(network: nn.Module, side: int | str = "2*n", outputs: Sequence[str] = ("pred",)) -> Export:
    inputs = {"image": {"num_channels": 1, "spatial_shape": [side, side], "meaning": "image"}}
    return Export(network.eval(), inputs, {name: {"meaning": "image"} for name in outputs}, None, {"network": "tiny"})


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (tiny(Noise()), r"net\.onnx: not written, pred at 1 x 1 x 4 x 6 differs from PyTorch by .* of its largest value"),
        (tiny(Branch()), "tiny: PyTorch cannot export it"),
        (tiny(nn.Identity(), outputs=("pred", "points")), "the network answers 1 tensors, the outputs are pred, points"),
        (tiny(nn.Conv2d(1, 1, 3), side="2**p"), r"spatial_shape: '2\*\*p' is no number and not of the form 16\*n"),
    ],
)
def test_what_answers_otherwise_is_not_written(monkeypatch, tmp_path, wanted, message):
    monkeypatch.setattr(module, "read_export", lambda *_: wanted)
    with pytest.raises(DataError, match=message):
        export(DEEPATLAS.root, tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_damaged_file(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"no graph")
    with pytest.raises(DataError, match="tiny: onnxruntime cannot run the file"):
        compare(tmp_path / "net.onnx", tiny(nn.Identity()))


@pytest.mark.parametrize(
    ("answer", "expected", "by_channel", "difference"),
    [
        ([[1.0, -4.0], [0.0, 0.5]], [[1.0, -4.0], [0.0, 0.4]], False, 0.025),
        ([[1.0, -4.0], [0.0, 0.5]], [[1.0, -4.0], [0.0, 0.4]], True, 0.25),
        ([[0.0, 3.0]], [[0.0, 3.0]], False, 0.0),
        ([[0.0, 0.5]], [[0.0, 0.0]], True, 0.5),
        ([[float("nan"), 1.0]], [[1.0, 1.0]], False, float("inf")),
        ([[1.0]], [[1.0, 1.0]], False, float("inf")),
    ],
)
def test_difference(answer, expected, by_channel, difference):
    """Of one sample: a row a channel."""
    found = module._difference(torch.tensor([answer]), torch.tensor([expected]), by_channel)
    assert found == pytest.approx(difference)


def test_what_a_bundle_says(deepatlas_model):
    wanted = read_export(Bundle.read(DEEPATLAS.root), "registration", deepatlas_model)
    assert (list(wanted.inputs), list(wanted.outputs), wanted.batch) == (["fixed", "moving"], ["ddf", "velocity"], 1)
    sizes = {tuple(tensor.shape) for step in range(3) for tensor in wanted.random_inputs(step, batch=2)}
    assert sizes == {(1, 1, 32, 48, 64), (1, 1, 48, 64, 32), (1, 1, 64, 32, 48)}


@torch.no_grad()
def test_an_archive_knows_its_exports(archive, tmp_path):
    """Its packages have other names."""
    (tmp_path / "deepatlas").mkdir()
    unpack(archive, tmp_path / "deepatlas")
    bundle = Bundle.read(tmp_path / "deepatlas")
    with isolated(bundle):
        wanted = read_export(bundle, "registration")
        ddf, velocity = wanted.answers(wanted.random_inputs(0, batch=1))
    assert (ddf.shape, velocity.shape) == ((1, 3, 32, 48, 64), (1, 3, 16, 24, 32))
