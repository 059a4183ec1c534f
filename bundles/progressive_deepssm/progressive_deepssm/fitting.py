"""What training cases are asked beside the steps: the shape model and the template mesh at the start, calibrated errors at the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import convert_to_tensor
from torch import nn

from progressive_deepssm.data import ShapeDataset
from progressive_deepssm.frame import frame_affine
from progressive_deepssm.training import ShapeUpdate
from tools.bundle.checkpoint import plain
from tools.bundle.precision import autocast
from tools.data.checks import DataError
from tools.data.plan import Plan
from tools.networks.shape_networks import ShapeNetwork
from tools.shape.distance import warp_mesh
from tools.shape.procrustes import are_mirrored, fit_similarity
from tools.shape.surfaces import Surface, decimated, label_surface, read_surface, smoothed, write_surface

__all__ = ["ErrorCalibrator", "ShapeModelFitter", "TEMPLATE", "check_correspondence", "make_template", "read_template"]

TEMPLATE = "template.vtk"
VERTICES = 4000  # at most, of the template
STRANGE = 0.5  # root-mean-square radii of the mean shape: points in another order lie about one off, those of any anatomy far less


def make_template(points: Sequence[np.ndarray], labels: Sequence[np.ndarray], mean: np.ndarray, plan: Plan) -> Surface:
    """The mean shape's mesh: the surface of the case nearest to the mean, smoothed and warped onto it. All in the frame, mm.

    Args:
        points: (M, 3) of each case.
        labels: label map (D, H, W) of each case on the plan's grid, channel numbers.
        mean: (M, 3).
        plan: the plan.

    Raises:
        DataError: the label map has no surface.
    """
    nearest = int(np.argmin([((shape - mean) ** 2).sum() for shape in points]))
    structure = plan.extra["shape"]["structure"]
    value = None if structure is None else plan.label_values.index(structure)
    surface = label_surface(np.asarray(labels[nearest]), frame_affine(plan), value, name="label map of the case nearest to the mean")
    # or the voxel steps of one case would show in all
    return warp_mesh(smoothed(decimated(surface, VERTICES)), points[nearest], mean)


@torch.no_grad()
def check_correspondence(network: ShapeNetwork, points: np.ndarray, names: Sequence[str]) -> None:
    """Check that a network's shape model can make points anew, wherever they lie: they correspond to the model's then.

    Args:
        network: with a shape model.
        points: (N, M, 3) in the frame, mm.
        names: of the N cases, for the message.

    Raises:
        DataError: those of a case do not, or are mirror images of the model's; the line names the worst case.
    """
    mean = network.mean.double().cpu().numpy()
    mirrored = are_mirrored(points, mean)
    if mirrored.any():
        raise DataError(f"{names[int(np.argmax(mirrored))]}: the points are mirror images of the model's; train each side by itself")
    placed = fit_similarity(points, mean).apply(points)
    rebuilt = network.reconstruct(torch.from_numpy(placed).to(network.mean)).double().cpu().numpy()
    errors = np.sqrt(((placed - rebuilt) ** 2).sum(-1).mean(-1))
    worst, radius = int(errors.argmax()), float(np.sqrt(((mean - mean.mean(0)) ** 2).sum(1).mean()))
    if errors[worst] > STRANGE * radius:
        what = f"{names[worst]}: the points do not correspond to the model's, whose shape model misses them by {errors[worst]:.1f} mm"
        raise DataError(f"{what}; both must come from the same correspondences")


def read_template(model_dir: str | os.PathLike) -> Surface:
    """The template of a trained model.

    Raises:
        DataError: the file is missing or no mesh.
    """
    path = Path(model_dir) / TEMPLATE
    if not path.is_file():
        raise DataError(f"{path}: missing; train first, or give --model_dir")
    return read_surface(path)


class ShapeModelFitter:
    """Handler: gives the network its shape model, and before the first step writes the template mesh, ``template.vtk``, beside the weights.

    A network that comes with a shape model (fine-tuning) keeps it, and the points of the cases must correspond to it. The handler must
    stand before the one that resumes a run.

    Args:
        network: a :class:`tools.networks.shape_networks.ShapeNetwork`.
        dataset: the training cases.
        plan: the plan.
        output_dir: where the template goes.
        rank: only the process of rank 0 writes.
    """

    def __init__(self, network: nn.Module, dataset: ShapeDataset, plan: Plan, output_dir: str | os.PathLike, rank: int = 0) -> None:
        self.network, self.dataset, self.plan, self.output_dir, self.rank = network, dataset, plan, Path(output_dir), rank

    def attach(self, engine: Engine) -> None:
        """Register with a trainer; a shape model that is there already is held against the cases now, before anything is written.

        Raises:
            DataError: see :func:`check_correspondence`.
        """
        network = plain(self.network)
        if network.fitted:
            cases = self._cases()
            check_correspondence(network, self._points(cases).double().numpy(), [case["name"] for case in cases])
        engine.add_event_handler(Events.STARTED, self)
        if self.rank == 0:
            engine.add_event_handler(Events.EPOCH_STARTED(once=1), self.write)  # not in a run that is resumed: it has its template

    def __call__(self, engine: Engine) -> None:
        """Fit, once."""
        network = plain(self.network)
        if engine.state.iteration == 0 and not network.fitted:
            network.fit(self._points(self._cases()))

    def write(self) -> None:
        """Write the template."""
        cases, mean = self._cases(), plain(self.network).mean.double().cpu().numpy()
        labels = [np.asarray(case["label"])[0] for case in cases]
        write_surface(self.output_dir / TEMPLATE, make_template(self._points(cases).double().numpy(), labels, mean, self.plan))

    def _cases(self) -> list[Any]:
        return [self.dataset[index] for index in range(len(self.dataset))]

    @staticmethod
    def _points(cases: Sequence[Any]) -> torch.Tensor:
        """(N, M, 3) in the frame, mm."""
        return torch.stack([convert_to_tensor(case["points"], track_meta=False) for case in cases])


class ErrorCalibrator:
    """Handler: after the last epoch calibrates the network's expected errors, point by point, on the training cases.

    Each case is deformed once, as in training, and factor i is the mean error of point i over the mean of what the network expected
    there. The network sees what an image shows of its error; which points it always finds badly, the cases tell better.

    It must stand behind the handler that may stop early, and before those that save weights.

    Args:
        update: what trains the network; it deforms the cases.
        dataset: the training cases.
    """

    def __init__(self, update: ShapeUpdate, dataset: ShapeDataset) -> None:
        self.update, self.dataset = update, dataset

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Calibrate, when the last epoch is done."""
        # or when it was stopped early
        if engine.state.epoch == engine.state.max_epochs or engine.should_terminate:
            self.calibrate(engine.state.device, self.update.schedule.total_steps)

    @torch.no_grad()
    def calibrate(self, device: torch.device, step: int) -> None:
        """Set the network's ``calibration``; case k is deformed as at the step ``step`` + k."""
        network = plain(self.update.network).eval()
        errors, expected = (torch.zeros_like(network.calibration) for _ in range(2))
        for index in range(len(self.dataset)):
            case: Any = self.dataset[index]
            batch = {key: convert_to_tensor(case[key], track_meta=False)[None] for key in ("image", "label", "points")}
            image, _, points = self.update.prepare(batch, device, step + index)
            with autocast(self.update.dtype, image.device):
                output = network(image, scales=len(network.scales))
            errors += (output.points[-1][0].float() - points[0, : len(errors)]).norm(dim=1)
            expected += output.uncertainty[0].float()
        network.calibration.copy_(errors / expected)
