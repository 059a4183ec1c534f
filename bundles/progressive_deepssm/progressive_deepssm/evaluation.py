"""A shape network on held-out cases: one row a case, against the true label's surface, in the images' own space."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from progressive_deepssm.data import check_shape_cases
from progressive_deepssm.field import check_sizes
from progressive_deepssm.fitting import read_template
from progressive_deepssm.modelling import ShapeModeller, ShapePrediction
from progressive_deepssm.uncertainty import PointErrors, add_usual_uncertainty, over_cases, rank_correlation
from tools.bundle.training_record import evaluated_training
from tools.data.checks import check_dataset
from tools.data.decathlon import Case, read_dataset
from tools.data.geometry import GridMapping, load_volume
from tools.data.plan import Plan
from tools.data.splits import evaluation_cases_of_model
from tools.metrics.segmentation import segmentation_metrics
from tools.metrics.tables import write_metrics
from tools.networks.shape_networks import ShapeNetwork
from tools.shape.case_pictures import ScoredSurface, best_median_worst, errors_picture, surfaces_picture
from tools.shape.distance import point_distances, surface_distance
from tools.shape.particles import read_particles
from tools.shape.procrustes import fit_similarity
from tools.shape.surfaces import Surface, read_label_surface

__all__ = ["case_metrics", "evaluate"]

logger = logging.getLogger("evaluation")


def case_metrics(
    case: Case, true: Surface, prediction: ShapePrediction, grid: GridMapping, modeller: ShapeModeller
) -> tuple[dict[str, float], PointErrors]:
    """The metrics of one case, whose label has the surface ``true``, and the errors of its points.

    - ``surface_mm``, ``hausdorff_mm``: of the predicted and the true label's surface, point to triangle, both directions averaged;
    - ``mean_shape_surface_mm``: the same of the mean of the training shapes, which looks at no image;
    - ``uncertainty_surface_spearman``: over the points, of their uncertainty and their distance from the true surface;
    - segmentation metrics, where the network learnt to segment;
    - with true points: ``rmse_mm_<M>`` of every scale, ``uncertainty_spearman`` of the uncertainty and the distance from the true point,
      ``placed_mean_surface_mm`` of the mean shape moved onto the true points, and ``pdm_surface_mm`` of what the shape model makes of them.
    """
    plan, shape = modeller.plan, modeller.plan.extra["shape"]

    def mean_distance(points: np.ndarray) -> float:
        return surface_distance(modeller.surface(points, grid.affine), true).mean

    found = surface_distance(prediction.surface, true)
    row = {"surface_mm": found.mean, "hausdorff_mm": found.hausdorff}
    row["mean_shape_surface_mm"] = mean_distance(modeller.mean_shape(grid.affine))
    row["uncertainty_mm"] = float(prediction.uncertainty.mean())
    errors = PointErrors(prediction.uncertainty, point_distances(prediction.points, true), None)
    row["uncertainty_surface_spearman"] = rank_correlation(errors.expected, errors.surface).statistic
    if shape["segmentation"]:
        truth, affine = load_volume(case.label)
        spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0))
        segmentation = grid.to_native(prediction.logits.softmax(0), mode="segmentation").numpy()
        row |= segmentation_metrics(segmentation, truth, plan.labels, spacing)
    if case.particles is not None:
        points = read_particles(case.particles, shape["points"])[: shape["scales"][-1]]
        for scale in prediction.scales:
            row[f"rmse_mm_{len(scale)}"] = float(((scale - points[: len(scale)]) ** 2).sum(1).mean() ** 0.5)
        errors = errors._replace(point=np.linalg.norm(prediction.points - points, axis=1))
        row["uncertainty_spearman"] = rank_correlation(errors.expected, errors.point).statistic
        mean = modeller.mean_shape(grid.affine)
        row["placed_mean_surface_mm"] = mean_distance(fit_similarity(mean, points).apply(mean))
        row["pdm_surface_mm"] = mean_distance(modeller.reconstruction(points, grid.affine))
    return row, errors


def evaluate(
    dataset_dir: str | os.PathLike,
    model_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    network: ShapeNetwork,
    plan: Plan,
    device: torch.device,
    precision: str = "auto",
    seed: int | None = None,
    details: Mapping[str, Any] | None = None,
    evaluate_on: str = "held_out",
) -> dict[str, Any]:
    """Write ``metrics.csv`` and ``summary.json``: the metrics of :func:`case_metrics`, and ``seconds`` from the image file to its surface.

    Of the uncertainty also what one map for all cases reaches, and in the summary, as ``uncertainty_over_cases``, whether it tells
    which case is bad (:mod:`progressive_deepssm.uncertainty`).

    Beside them ``surfaces.png``, the best, the median and the worst predicted surface, and ``scales.png``, the errors of the points at
    every scale, where true points are known.

    Args:
        dataset_dir, model_dir, output_dir: data set, folder of the model, folder for the results.
        network: the trained network.
        plan: the plan.
        device: where it computes.
        precision: "auto", "float32", "bf16" or "fp16".
        seed: of the training, for the summary; None for what ``training.json`` says.
        details: further values for the summary.
        evaluate_on: see :func:`tools.data.splits.evaluation_cases`.

    Returns:
        the summary.

    Raises:
        DataError: the data are unfit.
    """
    training = evaluated_training(model_dir, seed)
    dataset = read_dataset(dataset_dir)
    cases, split = evaluation_cases_of_model(dataset, model_dir, evaluate_on)
    check_dataset(dataset, need_cases=1)
    check_sizes(cases, plan)
    sizes = plan.extra["shape"]
    check_shape_cases([case for case in cases if case.particles is not None], sizes["points"], sizes["structure"])
    modeller = ShapeModeller(network, read_template(model_dir), plan, device, precision)
    rows: list[dict[str, Any]] = []
    surfaces, errors = [], []
    for case in cases:
        begin = time.perf_counter()
        prediction, grid = modeller(case.image)
        seconds = time.perf_counter() - begin
        true = read_label_surface(case.label, sizes["structure"])
        metrics, own = case_metrics(case, true, prediction, grid, modeller)
        row = {"case": case.name, **metrics, "seconds": seconds}
        rows.append(row)
        errors.append(own)
        distances = point_distances(prediction.surface.vertices, true)
        surfaces.append(ScoredSurface(case.name, row["surface_mm"], prediction.surface, distances))
        logger.info(f"{case.name}: surface distance {row['surface_mm']:.3f} mm, mean shape {row['mean_shape_surface_mm']:.3f} mm")
    surfaces_picture(Path(output_dir) / "surfaces.png", best_median_worst(surfaces))
    add_usual_uncertainty(rows, errors)
    by_scale = {f"{size} points": [row[f"rmse_mm_{size}"] for row in rows if f"rmse_mm_{size}" in row] for size in sizes["scales"]}
    if all(by_scale.values()):
        errors_picture(Path(output_dir) / "scales.png", by_scale, "RMSE of a point in a case, mm")
    told = {"uncertainty_over_cases": over_cases(rows, sizes["scales"][-1])}
    return write_metrics(output_dir, rows, split=split, **training, **told, **(details or {}))
