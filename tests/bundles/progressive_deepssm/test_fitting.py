from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from progressive_deepssm.fitting import ErrorCalibrator
from tools.networks.shape_networks import ShapeOutput

EXPECTED = torch.tensor([0.5, 1.0, 4.0])  # mm


class Unmoved(nn.Module):
    """Finds all points in the centre."""

    scales = (2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calibration", torch.ones(3))

    def forward(self, image, scales):
        points = torch.zeros(1, 3, 3)
        return ShapeOutput((points[:, :2], points), ((points[:, :2],), (points,)), EXPECTED.log()[None], None)


@pytest.fixture
def calibrator():
    # true points lie 1 and 3 mm from the centre in the first case, 2, 2 and 2 mm in the second; a fourth point is not asked for
    distances = torch.tensor([[1.0, 3.0, 3.0, 9.0], [2.0, 2.0, 2.0, 9.0]])
    cases = [
        {"image": torch.zeros(1, 2, 2, 2), "label": torch.zeros(1, 2, 2, 2), "points": d[:, None] * torch.eye(3)[0]} for d in distances
    ]
    update = SimpleNamespace(network=Unmoved(), dtype=None, schedule=SimpleNamespace(total_steps=7), steps=[])

    def prepare(batch, device, step):
        update.steps.append(step)
        return batch["image"], batch["label"], batch["points"]

    update.prepare = prepare
    return ErrorCalibrator(update, cases)


@pytest.mark.parametrize(("epoch", "stopped", "calibrated"), [(3, False, True), (2, True, True), (2, False, False)])
def test_expected_errors_are_calibrated_at_the_end(calibrator, epoch, stopped, calibrated):
    state = SimpleNamespace(epoch=epoch, max_epochs=3, device=torch.device("cpu"))
    calibrator(SimpleNamespace(state=state, should_terminate=stopped))
    # mean errors 1.5, 2.5 and 2.5 mm
    expected = torch.tensor([3.0, 2.5, 0.625]) if calibrated else torch.ones(3)
    assert torch.allclose(calibrator.update.network.calibration, expected)
    assert calibrator.update.steps == ([7, 8] if calibrated else [])
