"""Both networks on held-out cases: one row a case, in the images' own geometry."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deepatlas.registering import Registrar, pair_metrics
from tools.bundle.options import check_number, check_range
from tools.bundle.precision import autocast, autocast_dtype
from tools.bundle.training_record import evaluated_training
from tools.data.checks import DataError, check_dataset
from tools.data.cropping import warn_of_cropping
from tools.data.decathlon import Case, read_dataset
from tools.data.files import write_nifti
from tools.data.geometry import load_volume, to_plan
from tools.data.plan import Plan, read_header
from tools.data.rotation import random_rotation, rotate_points, rotate_volume
from tools.data.splits import evaluation_cases_of_model, report_pairs
from tools.metrics.segmentation import segmentation_metrics
from tools.metrics.tables import write_metrics
from tools.shape.particles import read_particles, write_particles

__all__ = ["evaluate", "rotated_case", "segment"]

logger = logging.getLogger("evaluation")


@torch.no_grad()
def segment(network: nn.Module, image: str | os.PathLike, plan: Plan, device: torch.device, precision: str = "auto") -> np.ndarray:
    """Label map of one image file, (X, Y, Z) on its own grid, in the data set's label values."""
    tensor, grid = to_plan(*load_volume(image), plan)
    with autocast(autocast_dtype(precision, device), device):
        logits = network.to(device).eval()(tensor[None].to(device))
    return grid.to_native(logits[0].float().softmax(0).cpu(), mode="segmentation").numpy()


def rotated_case(case: Case, folder: str | os.PathLike, degrees: float, generator: np.random.Generator) -> Case:
    """A labelled case, its image, label and points turned alike by a random rotation (:mod:`tools.data.rotation`), in ``folder``."""
    rotation = random_rotation(degrees, generator)
    files = {}
    for role, path in (("image", case.image), ("label", case.label)):
        files[role] = Path(folder) / f"{case.name}_{role}.nii.gz"
        write_nifti(files[role], *rotate_volume(*load_volume(path), rotation, is_label=role == "label"))
    points = None
    if case.particles is not None:
        points = Path(folder) / case.particles.name
        write_particles(points, rotate_points(read_particles(case.particles), *read_header(case), rotation))
    return Case(case.name, files["image"], files["label"], particles=points)


def evaluate(
    dataset_dir: str | os.PathLike,
    model_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    network: nn.Module | None,
    registrar: Registrar,
    seed: int | None = None,
    rotation: float = 0,
    rotation_seed: int = 0,
    evaluate_on: str = "held_out",
) -> dict[str, Any]:
    """Write ``metrics.csv`` and ``summary.json``: each case's segmentation, and the registration of another case onto it.

    A model may be of one network alone, the other never having learnt; then what it would do is left out.

    The pairs are the documented ones (:func:`tools.data.splits.report_pairs`); labels are warped with nearest neighbour. Columns
    of the registration begin with ``registration_``; ``registration_seconds`` is what the pair took in the networks and the instance
    optimisation. Where both cases of a pair have points (the data set's particle files), ``registration_tre`` is the target registration
    error, mm, and ``registration_tre_before`` that of the images as they are laid at the start.

    Args:
        dataset_dir, model_dir, output_dir: data set, folder of the model's ``splits.json`` and ``training.json``, folder for the results.
        network: F_S, or None.
        registrar: what registers; it holds the plan.
        seed: of the training, for the summary; None for what ``training.json`` says.
        rotation: each moving case is turned about its centre before it is registered, about a random axis by an angle uniform
            between 0 and this many degrees. The fixed cases and the segmentation see the images as they are.
        rotation_seed: of these rotations; one seed turns the same case in the same way for every model that is evaluated on these cases.
        evaluate_on: see :func:`tools.data.splits.evaluation_cases`; of the "unlabelled" cases the networks have learnt from the images.

    Returns:
        the summary.

    Raises:
        DataError: there are no weights of either network, the data set has a fault, ``rotation`` is no angle or ``rotation_seed`` no seed.
    """
    check_range("rotation", rotation, most=180)
    check_number("rotation_seed", rotation_seed, least=0)
    if network is None and registrar.network is None:
        raise DataError(f"{model_dir}: neither model.pt nor registration.pt; train first, or give --model_dir")
    training = evaluated_training(model_dir, seed)
    dataset = read_dataset(dataset_dir)
    cases, split = evaluation_cases_of_model(dataset, model_dir, evaluate_on)
    check_dataset(dataset)
    plan = registrar.plan
    warn_of_cropping(cases, plan)
    onto = {fixed: moving for moving, fixed in report_pairs(len(cases))}
    if registrar.network is not None:
        registrar.check((cases[fixed], cases[moving]) for fixed, moving in onto.items())
    rows = []
    for index, case in enumerate(cases):
        truth, affine = load_volume(case.label)
        spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0))
        row: dict[str, Any] = {"case": case.name}
        if network is not None:
            prediction = segment(network, case.image, plan, registrar.device, registrar.precision)
            row |= segmentation_metrics(prediction, truth, plan.labels, spacing)
        if registrar.network is not None and index in onto:
            moving = cases[onto[index]]
            with tempfile.TemporaryDirectory() as scratch:
                if rotation:
                    moving = rotated_case(moving, scratch, float(rotation), np.random.default_rng((rotation_seed, onto[index])))
                pair = registrar(case.image, moving.image, there_and_back=True)
                warped = pair.warp(load_volume(moving.label)[0], mode="nearest")
                metrics = pair_metrics(case, moving, pair, warped, plan)
            row |= {"moving": moving.name} | {
                f"registration_{key}": value for key, value in metrics.items() if key not in ("fixed", "moving")
            }
        rows.append(row)
        found = {name: row.get(key) for name, key in (("segmentation", "dice_mean"), ("registration", "registration_dice_mean"))}
        logger.info(f"{case.name}: " + ", ".join(f"{name} Dice {value:.3f}" for name, value in found.items() if value is not None))
    options = {**registrar.options, "rotation": float(rotation), "rotation_seed": rotation_seed}
    return write_metrics(output_dir, rows, split=split, **training, **options)
