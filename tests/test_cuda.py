"""The shared parts and the shipped networks answer on a GPU as they do on the processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser

from tools.losses import LocalNCCLoss
from tools.registration.displacement import compose, integrate_velocity, invert, jacobian_determinant, warp

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"

pytestmark = pytest.mark.cuda


@pytest.fixture(autouse=True)
def full_precision():
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def difference(mine: torch.Tensor, expected: torch.Tensor) -> float:
    return ((mine.cpu() - expected).norm() / expected.norm()).item()


def field(seed: int) -> torch.Tensor:
    coarse = torch.randn(2, 3, 12, 16, 12, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(48, 64, 48), mode="trilinear")


@pytest.mark.parametrize(
    ("function", "arguments"), [(integrate_velocity, 1), (invert, 1), (jacobian_determinant, 1), (compose, 2), (warp, 2)]
)
def test_displacements(function: Callable[..., torch.Tensor], arguments: int):
    fields = [field(seed) for seed in range(arguments)]
    assert difference(function(*(value.cuda() for value in fields)), function(*fields)) < 1e-5


def test_local_ncc_and_its_gradient():
    values = []
    for device in ("cpu", "cuda"):
        images = [F.pad(field(seed)[:, :1].sigmoid(), (8,) * 6).to(device).requires_grad_() for seed in (1, 2)]
        value = LocalNCCLoss(7)(*images)
        value.backward()
        values.append((value.detach(), images[0].grad))
    assert difference(values[1][0], values[0][0]) < 1e-5
    assert difference(values[1][1], values[0][1]) < 1e-4


@pytest.mark.parametrize(
    ("bundle", "size"),
    [("deepatlas", (48, 64, 48)), ("multidomain_segmentation", (112, 112)), ("progressive_deepssm", (48, 64, 48))],
)
def test_shipped_networks(bundle: str, size: tuple[int, ...]):
    answers = []
    for device in ("cpu", "cuda"):
        parser = ConfigParser(ConfigParser.load_config_file(BUNDLES / bundle / "configs" / "inference.json"))
        parser.update({"bundle_root": str(BUNDLES / bundle), "device": torch.device(device), "precision": "float32"})
        network = parser.get_parsed_content("network").to(device).eval()
        with torch.no_grad():
            answer = network(torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0)).to(device))
        answers.append(answer if isinstance(answer, torch.Tensor) else answer[0])
    assert difference(answers[1], answers[0]) < 1e-4
