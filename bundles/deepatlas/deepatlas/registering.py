"""Registering pairs with trained networks: files in, files in the fixed image's geometry out."""

from __future__ import annotations

import csv
import difflib
import logging
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.affines import apply_affine
from torch import nn

from tools.bundle.options import check_number
from tools.bundle.overrides import to_bool
from tools.bundle.precision import autocast, autocast_dtype
from tools.data.checks import DataError, check_pair, first_line
from tools.data.cropping import warn_of_cropping
from tools.data.decathlon import Case, case_name
from tools.data.files import write_nifti
from tools.data.geometry import GridMapping, load_volume, onto_grid, to_plan
from tools.data.plan import Plan, read_header
from tools.metrics.registration import registration_metrics, target_registration_error
from tools.metrics.tables import write_metrics
from tools.networks.registration import RegistrationNetwork
from tools.registration.displacement import compose, warp
from tools.registration.fields import lps_affine
from tools.registration.instance import optimise_pair
from tools.registration.itk_field import is_sheared, physical_displacement, resample, write_itk_field
from tools.shape.particles import check_world, read_particle_set

__all__ = ["Registrar", "RegisteredPair", "check_pairs", "check_points", "read_pairs", "register_pairs"]

logger = logging.getLogger("registration")

STARTS = ("centres", "headers")


@dataclass(frozen=True)
class RegisteredPair:
    """A registered pair.

    Attributes:
        ddf: (1, 3, D, H, W), voxels of the network's grid, on the CPU.
        displacement: the same on the fixed image's own grid as ITK has it, (X, Y, Z, 3), LPS mm.
        affine: of the fixed image, (4, 4), voxel to RAS mm.
        moving_affine: of the moving image.
        moving: the moving image as stored, (X', Y', Z').
        start: (4, 4), where a place of the fixed image, RAS mm, lay in the moving one before the registration.
        seconds: spent in the networks and the instance optimisation, reading and writing left out.
        backward: as ``ddf``, of the swapped pair, or None.
    """

    ddf: torch.Tensor
    displacement: np.ndarray
    affine: np.ndarray
    moving_affine: np.ndarray
    moving: np.ndarray
    start: np.ndarray
    seconds: float
    backward: torch.Tensor | None = None

    def warp(self, volume: np.ndarray, mode: str = "linear") -> np.ndarray:
        """Carry a volume of the moving image's grid onto the fixed image's: "linear", or "nearest" for label maps."""
        return resample(volume, self.moving_affine, self.displacement, self.affine, mode)

    def warp_soft(self, label: np.ndarray, values: Sequence[int]) -> np.ndarray:
        """Carry a label map of the moving image's grid onto the fixed image's, linearly.

        Args:
            label: (X', Y', Z').
            values: the label values, the background first.

        Returns:
            the share of each value in each voxel, (X, Y, Z, C) float32, of sum 1; outside of the moving image all is background.
        """
        structures = np.stack([self.warp(label == value) for value in values[1:]], axis=-1)
        return np.concatenate([np.clip(1 - structures.sum(-1, keepdims=True), 0, 1), structures], axis=-1)


@dataclass
class Registrar:
    """Registers one pair of image files.

    Args:
        network: F_R, with its weights; None where a model has none: it then registers nothing.
        plan: the plan it was trained with.
        segmentation: F_S for the instance optimisation's anatomy term; None leaves that term out.
        iterations: steps of instance optimisation from the network's answer; 0 for the network alone.
        learning_rate, similarity_weight, smoothness_weight, anatomy_weight: of the instance optimisation.
        affine_passes: affine pre-alignments (:class:`tools.networks.registration.RegistrationNetwork`).
        device, precision: where and how to compute.
        start: how the images lie before: "centres", one on the other and along the images' own axes, as in training; or "headers", as
            these place them in the world.

    Raises:
        DataError: ``iterations`` or ``affine_passes`` is no number of passes, or ``start`` is neither.
    """

    network: RegistrationNetwork | None
    plan: Plan
    segmentation: nn.Module | None = None
    iterations: int = 0
    learning_rate: float = 0.15
    similarity_weight: float = 0.05
    smoothness_weight: float = 0.02
    anatomy_weight: float = 4.0
    affine_passes: int = 0
    device: torch.device | str = "cpu"
    precision: str = "auto"
    start: str = "centres"

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise DataError(f"--start must be one of {', '.join(STARTS)}, not {self.start!r}")
        for name in ("iterations", "affine_passes"):
            check_number(name, getattr(self, name), least=0)
        self.device = torch.device(self.device)
        if self.network is not None:
            self.network = self.network.to(self.device).eval()
            self.network.affine_passes = self.affine_passes
        if self.segmentation is not None:
            self.segmentation = self.segmentation.to(self.device).eval()
        elif self.iterations:
            logger.warning("no segmentation network: the instance optimisation goes by the images alone; --network#path names a model.pt")

    def __call__(self, fixed: str | os.PathLike, moving: str | os.PathLike, there_and_back: bool = False) -> RegisteredPair:
        """Register two image files, and the other way round as well where ``there_and_back`` says so."""
        fixed_volume, fixed_affine = load_volume(fixed)
        moving_volume, moving_affine = load_volume(moving)
        fixed_image, fixed_grid = to_plan(fixed_volume, fixed_affine, self.plan)
        if self.start == "headers":
            moving_image, moving_grid = onto_grid(moving_volume, moving_affine, self.plan, fixed_grid), fixed_grid
        else:
            moving_image, moving_grid = to_plan(moving_volume, moving_affine, self.plan)
        begin = time.perf_counter()
        ddf = self.ddf(fixed_image[None], moving_image[None]).cpu()
        seconds = time.perf_counter() - begin
        displacement = self._physical(ddf, fixed_grid, moving_grid)
        backward = self.ddf(moving_image[None], fixed_image[None]).cpu() if there_and_back else None
        start = moving_grid.affine @ np.linalg.inv(fixed_grid.affine)
        return RegisteredPair(ddf, displacement, fixed_affine, moving_affine, moving_volume, start, seconds, backward)

    @property
    def options(self) -> dict[str, Any]:
        """How it registers, for a summary of results; ``guided``: whether predicted segmentations guide the instance optimisation."""
        guided = bool(self.iterations) and self.segmentation is not None
        return {name: getattr(self, name) for name in ("iterations", "affine_passes", "start")} | {"guided": guided}

    def check(self, pairs: Iterable[tuple[Case, Case]]) -> None:
        """Look at the points of pairs (fixed, moving), and at where a registration of them starts.

        Raises:
            DataError: see :func:`check_points`; or the start is "headers", and these place the two images of a pair apart.
        """
        pairs = list(pairs)
        check_points(pairs)
        for fixed, moving in pairs if self.start == "headers" else ():
            if not (_overlap(fixed, moving) or _overlap(moving, fixed)):
                raise DataError(f"{moving.image}: its header places it nowhere in {fixed.image}; --start centres begins centre on centre")

    def ddf(self, fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
        """Displacement (1, 3, D, H, W) in voxels of two preprocessed images (1, 1, D, H, W)."""
        fixed, moving = fixed.to(self.device), moving.to(self.device)
        with torch.no_grad(), self._autocast():
            output = self.network(fixed, moving)
        if not self.iterations:
            return output.ddf.float()
        probabilities = [None, None]
        if self.segmentation is not None:
            with torch.no_grad(), self._autocast():
                probabilities = [self.segmentation(image).float().softmax(1) for image in (fixed, moving)]
        if output.affine is not None:
            moving, probabilities[1] = (x if x is None else warp(x, output.affine) for x in (moving, probabilities[1]))
        result = optimise_pair(
            output.field.float(),
            fixed,
            moving,
            *probabilities,
            iterations=self.iterations,
            learning_rate=self.learning_rate,
            similarity_weight=self.similarity_weight,
            regularity_weight=self.smoothness_weight,
            anatomy_weight=self.anatomy_weight,
            displacement=lambda field: self.network.displacement(field, fixed.shape[2:]),
            symmetric=self.network.decoder.symmetric,
        )
        return result.ddf if output.affine is None else compose(output.affine, result.ddf)

    def _autocast(self) -> Any:
        return autocast(autocast_dtype(self.precision, self.device), self.device)

    @staticmethod
    def _physical(ddf: torch.Tensor, fixed: GridMapping, moving: GridMapping) -> np.ndarray:
        return physical_displacement(ddf, fixed.affine, moving.affine, fixed.native_shape, fixed.native_affine)


def read_pairs(path: str | os.PathLike) -> list[tuple[Case, Case]]:
    """Pairs (fixed, moving) of a CSV with the columns ``fixed,moving`` and optionally ``fixed_label``, ``moving_label``, ``fixed_points``
    and ``moving_points``, particle files (:mod:`tools.shape.particles`).

    Paths are absolute or relative to the CSV's folder; an empty cell is no label, or no points.

    Raises:
        DataError: the file is missing or no table, has no such columns, points of one image only or no rows, a column's name is nearly one
            of these, or a row lacks an image.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; --pairs wants a CSV with the columns fixed,moving")
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns, rows = reader.fieldnames or [], list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table of text in UTF-8 ({first_line(error)})") from error
    known = [f"{role}{kind}" for role in ("fixed", "moving") for kind in ("", "_label", "_points")]
    for column in set(columns) - set(known):
        near = difflib.get_close_matches(column or "", known, n=1, cutoff=0.8)
        if near:
            raise DataError(f"{path}: unknown column {column!r}, did you mean {near[0]!r}?")
    for column in ("fixed", "moving"):
        if column not in columns:
            raise DataError(f"{path}: has no column {column!r} (columns: {', '.join(columns)})")
    given = [column for column in ("fixed_points", "moving_points") if column in columns]
    if len(given) == 1:
        raise DataError(f"{path}: has points of one image of a pair only, in the column {given[0]!r}; both have to have them")
    if not rows:
        raise DataError(f"{path}: holds no pair")
    pairs = []
    for number, row in enumerate(rows, start=2):
        case = {}
        for role in ("fixed", "moving"):
            if not row[role]:
                raise DataError(f"{path}: line {number} has no {role} image")
            label, points = (path.parent / name if name else None for name in (row.get(f"{role}_label"), row.get(f"{role}_points")))
            case[role] = Case(case_name(row[role]), path.parent / row[role], label, particles=points)
        pairs.append((case["fixed"], case["moving"]))
    return pairs


def check_pairs(pairs: list[tuple[Case, Case]], plan: Plan) -> None:
    """Look at every file of every pair before work starts.

    Raises:
        DataError: a file is missing or faulty, a fixed image's grid is sheared, which no displacement field of ITK can have, or two pairs
            would write the same files.
    """
    outputs: dict[str, Path] = {}
    affines: dict[tuple[Path, Path | None], np.ndarray] = {}
    for fixed, moving in pairs:
        stem = f"{moving.name}_to_{fixed.name}"
        if stem in outputs:
            raise DataError(f"{fixed.image}: the pair {stem} occurs twice, its results would overwrite each other")
        outputs[stem] = fixed.image
        for case in (fixed, moving):
            files = case.image, case.label
            if files not in affines:
                affines[files] = check_pair(*files, plan.label_values)
        if is_sheared(affines[fixed.image, fixed.label]):
            raise DataError(f"{fixed.image}: its grid is sheared, a displacement field of ITK cannot have it; resample the image first")


def _overlap(one: Case, other: Case) -> bool:
    """Whether headers place some of 17 x 17 x 17 places of an image, borders included, within another one."""
    (shape, affine), (other_shape, other_affine) = read_header(one), read_header(other)
    places = np.stack(np.meshgrid(*(np.linspace(-0.5, n - 0.5, 17) for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)
    index = apply_affine(np.linalg.inv(other_affine) @ affine, places)
    return bool(((index > -0.5) & (index < other_shape - 0.5)).all(1).any())


def check_points(pairs: Iterable[tuple[Case, Case]]) -> None:
    """Check the points of pairs (fixed, moving).

    Raises:
        DataError: a file is missing or no list of points, its points lie outside their image, or the two images have not as many.
    """
    for pair in pairs:
        cases = [case for case in pair if case.particles is not None]
        for case, points in zip(cases, read_particle_set([case.particles for case in cases]) if cases else (), strict=True):
            check_world(case.particles, points, *read_header(case))


def register_pairs(
    pairs: str | os.PathLike,
    registrar: Registrar,
    output_dir: str | os.PathLike,
    inverse_consistency: bool | str = False,
    probabilities: bool | str = False,
) -> None:
    """Register every pair of a CSV and write image, field, warped label and ``metrics.csv``.

    Args:
        pairs: the CSV (:func:`read_pairs`).
        registrar: what registers.
        output_dir: folder for the results.
        inverse_consistency: whether to register the swapped pair as well and report the error.
        probabilities: whether to write the linearly warped label as well, ``..._warped_prob.nii.gz`` (X, Y, Z, C), as inference writes
            its probabilities (:func:`tools.bundle.transforms.segmentation_postprocessing`).

    Raises:
        DataError: see :func:`read_pairs`, :func:`check_pairs` and :meth:`Registrar.check`; ``inverse_consistency`` or ``probabilities`` is
            no switch, or the latter is asked for and no pair has a label to warp. Nothing is written then.
    """
    there_and_back, soft = to_bool(inverse_consistency), to_bool(probabilities)
    cases = read_pairs(pairs)
    if soft and all(moving.label is None for _, moving in cases):
        raise DataError(f"{pairs}: --probabilities true warps labels, and no pair has a moving_label")
    check_pairs(cases, registrar.plan)
    registrar.check(cases)
    # From headers on, all of a moving image is looked at.
    cropped = [case for pair in cases for case in (pair if registrar.start == "centres" else pair[:1])]
    warn_of_cropping({case.image: case for case in cropped}.values(), registrar.plan)
    output = Path(output_dir)
    rows = []
    for fixed, moving in cases:
        pair = registrar(fixed.image, moving.image, there_and_back)
        stem = f"{moving.name}_to_{fixed.name}"
        write_nifti(output / f"{stem}_warped.nii.gz", pair.warp(pair.moving), pair.affine, np.float32)
        write_itk_field(output / f"{stem}_ddf.nii.gz", pair.displacement, pair.affine)
        warped_label = None
        if moving.label is not None:
            label = load_volume(moving.label)[0]
            warped_label = pair.warp(label, mode="nearest")
            write_nifti(output / f"{stem}_warped_label.nii.gz", warped_label, pair.affine, registrar.plan.label_dtype)
            if soft:
                write_nifti(output / f"{stem}_warped_prob.nii.gz", pair.warp_soft(label, registrar.plan.label_values), pair.affine)
        rows.append(pair_metrics(fixed, moving, pair, warped_label, registrar.plan))
        logger.info(f"{stem}: {pair.seconds:.2f} s" + (f", Dice {rows[-1]['dice_mean']:.3f}" if "dice_mean" in rows[-1] else ""))
    write_metrics(output, rows, split=str(pairs), seed=None, **registrar.options)


def pair_metrics(fixed: Case, moving: Case, pair: RegisteredPair, warped_label: np.ndarray | None, plan: Plan) -> dict[str, Any]:
    """Metrics of one pair; where both labels are there those of labels, on the fixed image's grid, and where both have points ``tre`` and
    ``tre_before`` the registration, mm."""
    labels: dict[str, Any] = {}
    if warped_label is not None and fixed.label is not None:
        spacing = tuple(float(s) for s in np.linalg.norm(pair.affine[:3, :3], axis=0))
        labels = {"warped": warped_label, "fixed": load_volume(fixed.label)[0], "labels": plan.labels, "spacing": spacing}
    row = {"fixed": fixed.name, "moving": moving.name, "seconds": pair.seconds} | registration_metrics(pair.ddf, pair.backward, **labels)
    if fixed.particles is not None and moving.particles is not None:
        points = read_particle_set([fixed.particles, moving.particles])
        row["tre"] = target_registration_error(*points, pair.displacement, pair.affine)
        start = lps_affine(pair.start @ np.diag([-1.0, -1.0, 1.0, 1.0]))  # LPS to LPS
        row["tre_before"] = float(np.linalg.norm(apply_affine(start, points[0]) - points[1], axis=1).mean())
    return row
