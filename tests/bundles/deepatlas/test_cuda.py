"""On a GPU the networks, at their real size, learn what they learn on the processor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from deepatlas.networks import registration_network, segmentation_network
from deepatlas.stages import Schedule
from deepatlas.training import DeepAtlasUpdate
from tools.data.augmentation import Augmentation
from tools.data.checks import DataError

pytestmark = pytest.mark.cuda

PAIRS = 8
STAGES = [
    {"registration": 1, "registration_from": "images"},
    {"registration": 1, "registration_from": "labels"},
    {"segmentation": 1, "segmentation_from": "labels"},
]


def smooth(seed: int) -> torch.Tensor:
    coarse = torch.rand(2 * PAIRS, 1, 6, 8, 6, generator=torch.Generator().manual_seed(seed))
    return F.pad(F.interpolate(coarse, size=(40, 56, 40), mode="trilinear"), (4,) * 6)  # a border without anything, as real images have


def losses(device: str, precision: str, stage: dict, steps: int = 6) -> list[float]:
    """Of the first steps of a training; a loss or gradient that is not finite raises."""
    torch.manual_seed(0)
    networks = [network.to(device) for network in (segmentation_network(3), registration_network(3))]
    optimizers = [torch.optim.AdamW(network.parameters(), 1e-3) for network in networks]
    schedule = Schedule([{"name": "stage", **stage}], steps)
    made = DeepAtlasUpdate(*networks, *optimizers, schedule, 3, augmentation=Augmentation(), precision=precision)
    result = []
    for number in range(1, steps + 1):
        image = smooth(number)
        batch = {"image": image, "label": (image > 0.5).long() + (image > 0.7).long(), "labelled": torch.ones(2 * PAIRS, dtype=torch.bool)}
        state = SimpleNamespace(iteration=number, device=torch.device(device))
        result.append(made(SimpleNamespace(state=state), batch)["loss"])
    return result


@pytest.fixture(scope="module", params=STAGES, ids=["images", "labels", "segmentation"])
def expected(request) -> tuple[dict, list[float]]:
    """A stage, and its losses on the processor."""
    return request.param, losses("cpu", "float32", request.param)


def test_training_in_float32(expected):
    stage, values = expected
    assert losses("cuda", "float32", stage) == pytest.approx(values, rel=0.02)


def test_training_in_bf16(expected, request):
    stage, values = expected
    if "registration" in stage and stage["registration_from"] == "labels":
        # see tools.bundle.precision.volume_training_dtype
        reason = "gradients of 3D convolutions are wrong or not finite, as seen on an H200 with torch 2.11.0"
        request.applymarker(pytest.mark.xfail(raises=(AssertionError, DataError), strict=True, reason=reason))
    assert losses("cuda", "bf16", stage) == pytest.approx(values, rel=0.1)  # in bf16 the processor's own differ by 0.05
