from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from progressive_deepssm.fitting import ErrorCalibrator, check_correspondence
from progressive_deepssm.networks import network_from_plan
from tools.bundle.checkpoint import load_weights
from tools.data.checks import DataError
from tools.data.plan import Plan
from tools.networks.shape_networks import ShapeNetwork, ShapeOutput
from tools.shape.procrustes import fit_similarity, mirror
from tools.shape.report import read_model

MODELS = Path(__file__).resolve().parents[3] / "bundles" / "progressive_deepssm" / "models"

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


def ellipsoids(cases: int) -> np.ndarray:
    """Points (cases, 40, 3) of ellipsoids of about 10 mm, anywhere."""
    generator = np.random.default_rng(0)
    directions = generator.standard_normal((40, 3))
    radii = np.array([8.0, 12.0, 6.0]) * generator.uniform(0.8, 1.2, (cases, 1, 3))
    return radii * directions / np.linalg.norm(directions, axis=1)[:, None] + generator.uniform(-20, 20, (cases, 1, 3))


@pytest.fixture(scope="module", params=["progressive", "tl"])
def network(request) -> ShapeNetwork:
    """With a shape model of five ellipsoids, and random weights."""
    sizes = {"architecture": request.param, "channels": [4] * 4, "scales": [40], "modes": [4], "refinements": [1], "hidden": 8}
    network = network_from_plan(Plan(labels={0: "background", 1: "bone"}, size=(16, 16, 16), extra={"shape": sizes}))
    network.fit(torch.from_numpy(ellipsoids(5)))
    return network


def test_points_of_unseen_cases_correspond(network):
    check_correspondence(network, ellipsoids(9)[5:] + [50.0, 0.0, 0.0], list("abcd"))


@pytest.mark.parametrize(
    ("change", "fault"),
    [(lambda points: points[::-1], "b: the points do not correspond to the model's"), (mirror, "b: the points are mirror images")],
)
def test_points_that_do_not_correspond_to_the_model(network, change, fault):
    points = ellipsoids(9)[5:]
    points[1] = change(points[1])
    with pytest.raises(DataError, match=fault):
        check_correspondence(network, points, list("abcd"))


def test_the_points_of_the_shipped_shape_model_are_those_of_the_shipped_network():
    """One is the mean of aligned shapes, the other of shapes as they lie; neighbouring points are 1 to 3 mm apart."""
    network = load_weights(MODELS / "model.pt", network_from_plan(Plan.load(MODELS / "plan.json")))
    own, mean = network.decoders[-1].mean.double().numpy(), read_model(MODELS / "correspondences").pdm.mean
    assert np.linalg.norm(fit_similarity(own, mean).apply(own) - mean, axis=1).max() < 0.5
