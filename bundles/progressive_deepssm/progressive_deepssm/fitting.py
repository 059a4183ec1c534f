"""The shape model and the template mesh, made from the training cases when a training begins."""

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
from tools.bundle.checkpoint import plain
from tools.data.checks import DataError
from tools.data.plan import Plan
from tools.shape.distance import warp_mesh
from tools.shape.surfaces import Surface, decimated, label_surface, read_surface, smoothed, write_surface

__all__ = ["ShapeModelFitter", "TEMPLATE", "make_template", "read_template"]

TEMPLATE = "template.vtk"
VERTICES = 4000  # at most, of the template


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
    """Handler: before the first step gives the network its shape model and writes the template mesh, ``template.vtk``, beside the weights.

    A network that comes with a shape model (fine-tuning) keeps it. It must stand before the handler that resumes a run.

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
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Fit, once."""
        if engine.state.iteration > 0:
            return
        network = plain(self.network)
        cases: list[Any] = [self.dataset[index] for index in range(self.dataset.real)]
        points = torch.stack([convert_to_tensor(case["points"], track_meta=False) for case in cases])
        if not network.fitted:
            network.fit(points)
        if self.rank == 0:
            labels = [np.asarray(case["label"])[0] for case in cases]
            mean = network.mean.double().cpu().numpy()
            write_surface(self.output_dir / TEMPLATE, make_template(points.double().numpy(), labels, mean, self.plan))
