from __future__ import annotations

import pytest
import torch
from torch import nn

from tools.bundle.precision import AutocastInferer, autocast_dtype, precision_name, volume_training_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "device", "expected"),
    [
        ("float32", "cpu", None),
        ("bf16", "cpu", torch.bfloat16),
        ("float32", "cuda:0", None),
        ("fp16", "cuda:0", torch.float16),
        ("bf16", "cuda:0", torch.bfloat16),
    ],
)
def test_named(precision, device, expected):
    assert autocast_dtype(precision, torch.device(device)) is expected


@pytest.mark.parametrize("name", ["float32", "bf16", "fp16"])
def test_a_type_is_called_what_it_is_asked_for_by(name):
    assert precision_name(autocast_dtype(name, torch.device("cuda"))) == name


@pytest.mark.parametrize(("supported", "expected"), [(True, torch.bfloat16), (False, None)])
def test_auto_follows_the_hardware(supported, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert autocast_dtype("auto", CPU) is expected
    assert autocast_dtype("auto", torch.device("cuda")) is expected


@pytest.mark.parametrize(
    ("precision", "device", "expected", "tf32"),
    [
        ("auto", "cuda", None, False),
        ("float32", "cuda:1", None, False),
        ("bf16", "cuda", torch.bfloat16, True),
        ("bf16", "cpu", torch.bfloat16, True),
        ("float32", "cpu", None, True),
    ],
)
def test_volumes_are_trained_on_a_gpu_without_tf32(precision, device, expected, tf32, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert volume_training_dtype(precision, torch.device(device)) is expected
    assert torch.backends.cudnn.allow_tf32 is tf32


@pytest.mark.parametrize(
    ("precision", "device", "warnings"), [("bf16", "cuda", 1), ("fp16", "cuda", 1), ("auto", "cuda", 0), ("bf16", "cpu", 0)]
)
def test_half_precision_of_volumes_on_a_gpu_is_warned_of(precision, device, warnings, monkeypatch, caplog):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    volume_training_dtype(precision, torch.device(device))
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [f"--precision {precision}"] * warnings


def test_volumes_are_trained_on_a_processor_as_it_computes(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert volume_training_dtype("auto", CPU) is torch.bfloat16


def test_unknown():
    with pytest.raises(ValueError, match="must be 'auto' or one of"):
        autocast_dtype("float16", CPU)


def test_half_precision_on_a_cpu():
    with pytest.raises(ValueError, match="needs a GPU"):
        autocast_dtype("fp16", CPU)


@pytest.mark.parametrize(("precision", "expected"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_an_inferer_computes_in_the_precision_and_answers_in_float32(precision, expected):
    network, answers = nn.Conv3d(1, 2, 3, padding=1), []
    network.register_forward_hook(lambda module, inputs, output: answers.append(output))
    inputs = torch.rand(1, 1, 4, 4, 4)
    result = AutocastInferer(precision, CPU)(inputs, network)
    assert answers[0].dtype is expected
    assert torch.equal(result, answers[0].float())
    assert result.dtype is torch.float32


def test_an_inferer_of_a_precision_that_its_device_has_not():
    with pytest.raises(ValueError, match="precision 'fp16' needs a GPU"):
        AutocastInferer("fp16", "cpu")
