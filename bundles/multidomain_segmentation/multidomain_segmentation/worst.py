"""The cases that went worst, as pictures."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes

from tools.data.decathlon import Case
from tools.data.domain_plan import SlicePlan
from tools.data.geometry import load_volume
from tools.pictures import segmentation_picture

__all__ = ["draw_case", "draw_worst", "worst_rows"]


def worst_rows(rows: Sequence[Mapping[str, Any]], count: int) -> dict[str, list[Mapping[str, Any]]]:
    """Domain to its ``count`` rows of the lowest ``dice_mean``, the worst first; rows where that is not defined are left out."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted((row for row in rows if not math.isnan(row["dice_mean"])), key=lambda row: row["dice_mean"]):
        members = found.setdefault(row["domain"], [])
        if len(members) < count:
            members.append(row)
    return found


def draw_worst(
    folder: str | os.PathLike,
    rows: Sequence[Mapping[str, Any]],
    count: int,
    cases: Mapping[str, Sequence[Case]],
    plans: Mapping[str, SlicePlan],
    segment: Callable[[Case, str], np.ndarray],
    spacing_unit: str = "mm",
) -> None:
    """Draw the worst cases of each domain as ``worst_<domain>_<rank>_<case>.png``.

    Args:
        folder: where to.
        rows: of ``metrics.csv``: "case", "domain" and "dice_mean".
        count: number of cases of each domain.
        cases: the cases by domain.
        plans: domain to how its volumes are cut and what its labels are.
        segment: case and domain to the predicted label map, (X, Y, Z) on the image's own grid.
        spacing_unit: see :func:`draw_case`.
    """
    known = {(domain, case.name): case for domain, members in cases.items() for case in members}
    for domain, members in worst_rows(rows, count).items():
        for rank, row in enumerate(members, start=1):
            case = known[domain, row["case"]]
            path = Path(folder) / f"worst_{domain}_{rank}_{case.name}.png"
            draw_case(path, case, segment(case, domain), plans[domain], spacing_unit, title=f"{domain}, {case.name}")


def draw_case(
    path: str | os.PathLike, case: Case, prediction: np.ndarray, plan: SlicePlan, spacing_unit: str = "mm", title: str = ""
) -> None:
    """Three slices of a case, its prediction and its truth.

    Args:
        path: the PNG to write.
        case: with a label.
        prediction: (X, Y, Z) on the image's own grid.
        plan: says what the axis across the slices is.
        spacing_unit: "mm", proportions by the spacing in the header, or "voxel", where all voxels count as cubes.
        title: of the picture.
    """
    image, affine = load_volume(case.image)
    truth, _ = load_volume(case.label)
    canonical = [nib.as_closest_canonical(nib.Nifti1Image(volume.astype(np.float32), affine)) for volume in (image, prediction, truth)]
    spacing = voxel_sizes(canonical[0].affine) if spacing_unit == "mm" else (1.0, 1.0, 1.0)
    across = next(k for k, ends in enumerate(("RL", "AP", "SI")) if plan.axcodes(affine)[0] in ends)
    names = {value: name for value, name in plan.labels.items() if value}
    segmentation_picture(path, *(volume.get_fdata() for volume in canonical), names, spacing, title, across)
