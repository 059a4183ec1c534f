"""The network on held-out cases of every domain: one row a case, in the images' own geometry."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multidomain_segmentation.embedding import embed_cases, write_embeddings
from multidomain_segmentation.networks import DomainNetwork
from multidomain_segmentation.prototypes import DomainFinder
from multidomain_segmentation.worst import draw_worst
from tools.bundle.overrides import to_bool
from tools.bundle.training_record import evaluated_training
from tools.data.checks import DataError, check_images
from tools.data.decathlon import Case, Dataset, read_images
from tools.data.domain_plan import DomainPlan
from tools.data.domains import check_domains, chosen_names, read_domains
from tools.data.geometry import load_volume
from tools.data.plan import nearest_or_raise
from tools.data.slices import stack_slices, to_slices
from tools.data.splits import FRAMES, domain_patients, evaluation_cases, read_domain_splits
from tools.metrics.segmentation import segmentation_metrics
from tools.metrics.tables import summarise, write_metrics
from tools.networks.multidomain_unet import MultiDomainSegmentation

__all__ = ["evaluate", "evaluate_refusals", "segment"]

SPACING_UNITS = ("mm", "voxel")
REFUSED = "refused"

logger = logging.getLogger("evaluation")


@torch.no_grad()
def segment(network: DomainNetwork, image: str | os.PathLike, plan: DomainPlan, domain: str, device: torch.device) -> np.ndarray:
    """Label map of one image file, (X, Y, Z) on its own grid, in the domain's label values.

    Raises:
        DataError: the file is unfit, or the domain unknown.
    """
    plan.index(domain)
    slices, mapping = to_slices(*load_volume(image), plan.domains[domain])
    logits = network.to(device).eval()(slices[None, None].to(device), domain=domain)
    return stack_slices(logits[0].softmax(0).cpu(), mapping).numpy()


def evaluate(
    dataset_dir: str | os.PathLike,
    model_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    network: MultiDomainSegmentation,
    plan: DomainPlan,
    device: torch.device,
    precision: str = "auto",
    domains: str | Sequence[str] | None = None,
    evaluate_on: str = "held_out",
    spacing_unit: str = "mm",
    find_domains: bool | str = False,
    embeddings: bool | str = False,
    worst_pictures: int = 0,
    foreign_dir: str | os.PathLike = "",
    seed: int | None = None,
) -> dict[str, Any]:
    """Write ``metrics.csv`` and ``summary.json``: the metrics of :func:`tools.metrics.segmentation.segmentation_metrics` of every case.

    The column ``patient`` says whose image it is, where the data set or the training does (:func:`tools.data.splits.domain_patients`).

    Args:
        dataset_dir, model_dir, output_dir: data sets, folder of the model's ``splits.json`` and ``training.json``, folder for the results.
        network: the trained network.
        plan: the plan of all domains.
        device: where it computes.
        precision: "auto", "float32", "bf16" or "fp16".
        domains: domains to evaluate; by default all of the data.
        evaluate_on: see :func:`tools.data.splits.evaluation_cases`. Where ``label_limit`` hides most labels, the "unlabelled" cases are
            many more than those held out; the network has seen none of their labels, their images where it learns from answers.
        spacing_unit: "mm", distances by the spacing in the headers, or "voxel", where that is relative and says nothing.
        find_domains: whether to note in ``auto_domain``, ``auto_distance``, ``auto_threshold`` and ``auto_confidence`` what each image
            would have been taken for, and in ``auto_answer`` that domain, or "refused" where it is too far even from it.
            Cases are segmented as the domain they are of.
        embeddings: whether to write ``embeddings.csv`` and ``embeddings.png`` too, and the silhouettes into the summary
            (:mod:`multidomain_segmentation.embedding`).
        worst_pictures: number of cases of each domain, those of the lowest mean Dice, to draw as ``worst_<domain>_<rank>_<case>.png``.
        foreign_dir: images of none of the model's domains; nothing is evaluated then but whether they are refused
            (:func:`evaluate_refusals`).
        seed: of the training, for the summary, None for what ``training.json`` says; and of the map of the embeddings.

    Returns:
        the summary; its ``domains`` holds the metrics of each domain.

    Raises:
        DataError: the data are unfit, a domain is unknown, or an option has a value that cannot be.
    """
    if foreign_dir:
        return evaluate_refusals(foreign_dir, model_dir, output_dir, plan, device, seed)
    if spacing_unit not in SPACING_UNITS:
        raise DataError(f"spacing_unit must be one of {SPACING_UNITS}, not {spacing_unit!r}")
    if not isinstance(worst_pictures, int) or isinstance(worst_pictures, bool) or worst_pictures < 0:
        raise DataError(f"worst_pictures must be a whole number from 0 on, not {worst_pictures!r}")
    embeddings, training = to_bool(embeddings), evaluated_training(model_dir, seed)
    found, chosen = read_domains(dataset_dir), chosen_names(domains)
    nearest_or_raise(f"domain (in {dataset_dir})", dict.fromkeys(chosen), found)
    found = {name: dataset for name, dataset in found.items() if not chosen or name in chosen}
    plan.check(found)
    path = Path(model_dir) / "splits.json"
    records = read_domain_splits(path) if path.is_file() else {}
    chosen_cases = {name: evaluation_cases(dataset, records.get(name), path, evaluate_on) for name, dataset in found.items()}
    cases = {name: members for name, (members, _) in chosen_cases.items()}
    splits = {name: split for name, (_, split) in chosen_cases.items()}
    patients = {name: _patients(name, dataset, records.get(name)) for name, dataset in found.items()}
    check_domains(found)
    answering = DomainNetwork(network, plan, precision=precision)
    finder = DomainFinder(plan, model_dir, device, force=True) if to_bool(find_domains) else None
    rows = []
    for name, case in [(domain, case) for domain, members in cases.items() for case in members]:
        truth, affine = load_volume(case.label)
        spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0)) if spacing_unit == "mm" else (1.0, 1.0, 1.0)
        prediction = segment(answering, case.image, plan, name, device)
        row: dict[str, Any] = {"case": case.name, "domain": name}
        row |= {"patient": patients[name][case.name]} if case.name in patients[name] else {}
        row |= segmentation_metrics(prediction, truth, plan.domains[name].labels, spacing)
        if finder is not None:
            row |= _answer(finder, case)
        rows.append(row)
        logger.info(f"{name}, {case.name}: Dice {row['dice_mean']:.3f}")
    details: dict[str, Any] = {}
    if embeddings:
        embedded = embed_cases(answering.network, cases, plan, device)
        details["embeddings"] = write_embeddings(output_dir, embedded, training["seed"] or 0)
    if worst_pictures:

        def answer(case: Case, domain: str) -> np.ndarray:
            return segment(answering, case.image, plan, domain, device)

        draw_worst(output_dir, rows, worst_pictures, cases, plan.domains, answer, spacing_unit)
    by_domain = {name: summarise([row for row in rows if row["domain"] == name]) for name in found}
    return write_metrics(output_dir, rows, split=splits, **training, spacing_unit=spacing_unit, domains=by_domain, **details)


def evaluate_refusals(
    foreign_dir: str | os.PathLike,
    model_dir: str | os.PathLike,
    output_dir: str | os.PathLike,
    plan: DomainPlan,
    device: torch.device,
    seed: int | None = None,
) -> dict[str, Any]:
    """Ask for the domain of images that are of none; write ``metrics.csv`` with the columns ``auto_*`` of :func:`evaluate` and in
    ``expected`` the answer that is right, "refused", and ``summary.json``, whose ``refused`` is the share that is too far from all domains.

    Args:
        foreign_dir: the images (:func:`tools.data.decathlon.read_images`).
        model_dir, output_dir: folder of the model, folder for the results.
        plan: the plan of all domains.
        device: where the network computes.
        seed: of the training, for the summary; None for what ``training.json`` says.

    Returns:
        the summary.

    Raises:
        DataError: there is no image, or one is unfit.
    """
    cases = read_images(foreign_dir)
    check_images(cases)
    training = evaluated_training(model_dir, seed)
    finder = DomainFinder(plan, model_dir, device, force=True)
    rows = [{"case": case.name, "expected": REFUSED} | _answer(finder, case) for case in cases]
    refused = sum(row["auto_answer"] == REFUSED for row in rows) / len(rows)
    logger.info(f"{refused:.1%} of {len(rows)} images are refused")
    return write_metrics(output_dir, rows, split=f"all images of {Path(foreign_dir).name}", **training, refused=refused)


def _patients(name: str, dataset: Dataset, record: Mapping[str, Any] | None) -> dict[str, str]:
    """Case name to patient as the training grouped them, where it was by these cases, else as the data set says."""
    own = record is not None and set(record["train"]) <= {case.name for case in dataset.cases}
    pattern = record.get("group_pattern") if own else None
    # By default a training goes by FRAMES, which nobody has said of these names.
    return domain_patients(name, dataset, dataset.group_by if pattern in (None, FRAMES) else pattern)


def _answer(finder: DomainFinder, case: Case) -> dict[str, Any]:
    """Columns about the domain that an image is taken for."""
    answer = finder(case.image)
    columns = {f"auto_{key}": value for key, value in answer._asdict().items()}
    return columns | {"auto_answer": REFUSED if answer.foreign else answer.domain}
