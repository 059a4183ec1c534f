"""What is written about a set of corresponding points: template, shape model, tables and pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from tools.data.checks import DataError, read_json
from tools.data.files import atomic_path, write_csv, write_json
from tools.metrics.tables import versions
from tools.shape.comparison import Comparison, compare
from tools.shape.correspondence import Correspondences, ShapeModel
from tools.shape.distance import surface_distance, warp_weights
from tools.shape.particles import read_particles, write_particles
from tools.shape.pdm import PointDistributionModel
from tools.shape.pictures import modes_picture, statistics_picture
from tools.shape.procrustes import fit_similarity, generalised_procrustes
from tools.shape.sampling import scale_sizes
from tools.shape.statistics import compactness, generalisation, mode_counts, specificity
from tools.shape.surfaces import Surface, read_surface, write_surface

__all__ = ["ShapeCase", "read_model", "write_cases", "write_report"]

MODEL_FILES = ("template.vtk", "template.particles", "pdm.npz")
QUALITY_FILES = ("compactness.csv", "generalisation.csv", "specificity.csv", "statistics.csv", "statistics.png", "modes.png")
ROUNDING = 1e-3  # mm, of the numbers in a particle file and what a mesh's writer leaves


class ShapeCase(NamedTuple):
    """One shape of a set.

    Attributes:
        name: of the case.
        surface: its surface, LPS mm; a left side already mirrored, where that is asked for.
        training: whether it shapes the template and the model.
        mirrored: whether it was mirrored.
    """

    name: str
    surface: Surface
    training: bool
    mirrored: bool


def write_report(
    folder: Path, shapes: Sequence[ShapeCase], found: Correspondences, scaling: bool, start: float, against: np.ndarray | None = None
) -> dict[str, Any]:
    """Write the shape model, and how good it is.

    - ``pdm.npz``: the model; ``scores.csv``: the scores of every case in it, mm;
    - ``aligned/<case>.particles``: the points of every case as the model sees them, mirrored and without pose;
    - ``template.vtk`` and ``template.particles``: mesh and points of the mean shape, where the aligned points lie;
    - ``compactness.csv``, ``generalisation.csv``, ``specificity.csv``, ``cases.csv``, ``summary.json``, ``statistics.png``, ``modes.png``.

    ``cases.csv`` says for every case how far the template's mesh, warped to its points, is from its surface, and for cases that
    the model has not seen the same of what the model makes of their points.

    Args:
        folder: where to.
        shapes: the cases.
        found: their points, in the same order.
        scaling: whether the model is one of shapes without size.
        start: ``time.perf_counter()`` when the work began.
        against: (N, L, 3), mm, other corresponding points of the same cases; then ``statistics.csv`` and ``.png`` show both models
            with the same number of points, see :func:`tools.shape.comparison.compare`.

    Returns:
        what ``summary.json`` holds.

    Raises:
        ValueError: the other points do not lie on the surfaces; nothing is written.
    """
    trained = np.array([shape.training for shape in shapes])
    compared = None if against is None else compare(found.points, against, [shape.surface for shape in shapes], trained, scaling)
    aligned = generalised_procrustes(found.points[trained], scaling, found.template_points).aligned
    model = PointDistributionModel.fit(aligned)
    weights = warp_weights(found.template_points, found.template.vertices)
    write_surface(folder / "template.vtk", Surface(weights @ model.mean, found.template.faces))
    write_particles(folder / "template.particles", model.mean)
    model.save(folder / "pdm.npz")
    counts = mode_counts(max(len(model.deviations) - 1, 1))
    tables = {
        "compactness": compactness(model),
        "generalisation": generalisation(aligned, counts),
        "specificity": specificity(model, aligned, counts),
    }
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
    if compared:
        write_csv(folder / "statistics.csv", _side_by_side(compared))
    statistics_picture(folder / "statistics.png", compared.tables if compared else {"model": tables})
    modes_picture(folder / "modes.png", model, found.template, found.template_points)
    summary = _write_cases(folder, shapes, found, weights, model, scaling, start) | {"against": compared.summary if compared else None}
    write_json(folder / "summary.json", summary)
    return summary


def read_model(folder: Path) -> ShapeModel:
    """The shape model that :func:`write_report` wrote into a folder.

    Raises:
        DataError: a file is missing or cannot be used, or the files do not belong together.
    """
    template = read_surface(folder / "template.vtk")
    pdm = PointDistributionModel.load(folder / "pdm.npz")
    path = folder / "template.particles"
    points = read_particles(path)
    if len(points) != len(pdm.mean):
        raise DataError(f"{path}: {len(points)} points, but the mean of pdm.npz has {len(pdm.mean)}")
    if np.abs(points - pdm.mean).max() > ROUNDING:
        raise DataError(f"{path}: not the mean of pdm.npz (a model of an earlier version?); make the model anew")
    distances, numbers = cKDTree(template.vertices).query(points)
    if distances.max() > ROUNDING or len(set(numbers.tolist())) < len(numbers):
        raise DataError(f"{path}: its points are no vertices of template.vtk, or not all different")
    path = folder / "summary.json"
    summary = read_json(path)
    scaling = summary.get("scaling") if isinstance(summary, dict) else None
    if not isinstance(scaling, bool):
        raise DataError(f'{path}: no "scaling" that is true or false; it says whether the model is one of shapes without size')
    return ShapeModel(template, numbers, pdm, scaling)


def write_cases(
    folder: Path, shapes: Sequence[ShapeCase], found: Correspondences, model: ShapeModel, source: Path, start: float
) -> dict[str, Any]:
    """Write what an earlier model says about further cases: ``cases.csv``, ``scores.csv``, ``aligned/``, and copies of its files.

    Args:
        folder: where to.
        shapes: the cases, none of which shaped the model.
        found: their points, in the same order, corresponding to the model's.
        model: the model.
        source: the folder it was read from; not ``folder``.
        start: ``time.perf_counter()`` when the work began.

    Returns:
        what ``summary.json`` holds.
    """
    for name in MODEL_FILES:
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(source / name, temporary)
    for name in QUALITY_FILES:
        (folder / name).unlink(missing_ok=True)  # of an earlier run, about another model
    weights = warp_weights(found.template_points, found.template.vertices)
    summary = _write_cases(folder, shapes, found, weights, model.pdm, model.scaling, start) | {"model": source}
    write_json(folder / "summary.json", summary)
    return summary


def _write_cases(
    folder: Path,
    shapes: Sequence[ShapeCase],
    found: Correspondences,
    weights: np.ndarray,
    model: PointDistributionModel,
    scaling: bool,
    start: float,
) -> dict[str, Any]:
    """Write ``scores.csv``, ``aligned/`` and ``cases.csv``; what is to be said in short about the cases, and about the model alone.

    ``weights`` warp the template's mesh to points.
    """
    _write_scores(folder, shapes, fit_similarity(found.points, model.mean, scaling).apply(found.points), model)
    rows = []
    for shape, points, residual in zip(shapes, found.points, found.residuals):
        row = {"case": shape.name, "training": shape.training, "mirrored": shape.mirrored, "residual_mm": float(residual)}
        candidates = {"points": points} if shape.training else {"points": points, "model": model.approximate(points, scaling=scaling)[0]}
        for kind, candidate in candidates.items():
            distance = surface_distance(Surface(weights @ candidate, found.template.faces), shape.surface)
            row |= {f"{kind}_surface_mm": distance.mean, f"{kind}_hausdorff_mm": distance.hausdorff}
        rows.append(row)
    columns = [
        "case",
        "training",
        "mirrored",
        "residual_mm",
        *(f"{k}_{m}_mm" for k in ("points", "model") for m in ("surface", "hausdorff")),
    ]
    write_csv(folder / "cases.csv", rows, columns)
    distances = [row["points_surface_mm"] for row in rows]
    worst = int(np.argmax(distances))
    unseen = [row["model_surface_mm"] for row in rows if "model_surface_mm" in row]
    return {
        "training_shapes": model.cases,
        "shapes": len(shapes),
        "scales": scale_sizes(len(model.mean)),
        "scaling": scaling,
        "modes_for": {share: model.modes_for(float(share)) for share in ("0.90", "0.95", "0.99")},
        "points_surface_mm": float(np.mean(distances)),
        "worst_case": {"case": shapes[worst].name, "points_surface_mm": distances[worst], "median_mm": float(np.median(distances))},
        "model_surface_mm_of_unseen": float(np.mean(unseen)) if unseen else None,
        "seconds": round(time.perf_counter() - start, 1),
        "versions": versions(),
    }


def _write_scores(folder: Path, shapes: Sequence[ShapeCase], aligned: np.ndarray, model: PointDistributionModel) -> None:
    """Every case in the space of the model: its points, aligned to the mean (N, M, 3), and their scores."""
    own = {f"{shape.name}.particles" for shape in shapes}
    for left in (path for path in (folder / "aligned").glob("*.particles") if path.name not in own):
        left.unlink()  # of an earlier run, in the space of another model
    rows = []
    for shape, points, scores in zip(shapes, aligned, model.project(aligned)):
        write_particles(folder / "aligned" / f"{shape.name}.particles", points)
        rows.append({"case": shape.name, "training": shape.training, **{f"mode_{k + 1}": float(score) for k, score in enumerate(scores)}})
    write_csv(folder / "scores.csv", rows)


def _side_by_side(compared: Comparison) -> list[dict[str, Any]]:
    """A row for each model and number of modes; the last mode has a share of the variance only."""
    rows = []
    for name, tables in compared.tables.items():
        errors = {table: {row["modes"]: row["error"] for row in tables[table]} for table in ("generalisation", "specificity", "surface")}
        for row in tables["compactness"]:
            measured = {f"{table}_mm": values.get(row["modes"], "") for table, values in errors.items()}
            rows.append({"model": name, "points": compared.summary["points"], **row, **measured})
    return rows
