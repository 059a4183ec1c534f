"""What inference writes: points, surface and uncertainty beside the segmentation."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from torch import nn

from progressive_deepssm.fitting import read_template
from progressive_deepssm.modelling import ShapeModeller, ShapePrediction
from tools.data.decathlon import case_name
from tools.data.files import write_csv
from tools.data.plan import Plan
from tools.registration.shapes import write_mesh
from tools.shape.particles import write_particles
from tools.shape.surfaces import to_polydata

__all__ = ["ShapeWriter", "write_prediction"]

logger = logging.getLogger("inference")


def write_prediction(folder: str | os.PathLike, name: str, prediction: ShapePrediction) -> None:
    """Write ``<name>.particles``, ``<name>.vtk`` with the vertices' ``uncertainty_mm``, and ``<name>_uncertainty.csv``, a row a point."""
    folder = Path(folder)
    write_particles(folder / f"{name}.particles", prediction.points)
    mesh = to_polydata(prediction.surface)
    mesh.point_data["uncertainty_mm"] = prediction.vertex_uncertainty.astype(np.float32)
    write_mesh(folder / f"{name}.vtk", mesh)
    rows = [{"point": index + 1, "uncertainty_mm": round(float(value), 4)} for index, value in enumerate(prediction.uncertainty)]
    write_csv(folder / f"{name}_uncertainty.csv", rows)


class ShapeWriter:
    """Handler of an evaluator: models each image of a batch and writes what :func:`write_prediction` does.

    Args:
        network: a shape network, whose weights another handler loads at the start.
        plan: the plan.
        model_dir: where the template lies.
        output_dir: where to write.
        precision: "auto", "float32", "bf16" or "fp16".
    """

    def __init__(
        self, network: nn.Module, plan: Plan, model_dir: str | os.PathLike, output_dir: str | os.PathLike, precision: str = "auto"
    ) -> None:
        self.network, self.plan, self.model_dir, self.output_dir, self.precision = network, plan, model_dir, Path(output_dir), precision
        self.modeller: ShapeModeller | None = None

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Model and write the images of the batch."""
        if self.modeller is None:  # the weights are there now
            template = read_template(self.model_dir)
            self.modeller = ShapeModeller(self.network, template, self.plan, engine.state.device, self.precision)
        batch: Any = engine.state.batch
        # MONAI's evaluators take a batch apart before this event, unless they are told not to.
        for image in [case["image"] for case in batch] if isinstance(batch, list) else batch["image"]:
            name = case_name(image.meta["filename_or_obj"])
            affine = np.asarray(image.affine, dtype=np.float64)
            write_prediction(self.output_dir, name, self.modeller.predict(image.as_tensor(), affine))
            logger.info(f"{name}: points and surface written")
