"""Phantoms as a data set on disk, in the layout of the Medical Segmentation Decathlon."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tools.data.files import write_json, write_nifti
from tools.data.folders import fill_new_folder
from tools.data.phantoms.phantom import DEFAULT_SIZE, make_phantom
from tools.shape.particles import write_particles

__all__ = ["write_phantoms"]

LICENCE = "CC0 1.0"


def write_phantoms(
    to: str | os.PathLike,
    joint: str,
    cases: int = 24,
    seed: int = 0,
    size: tuple[int, int, int] = DEFAULT_SIZE,
    spacing: float | tuple[float, float, float] | None = None,
    points: int = 512,
    bone: str | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write a Decathlon-style data set of phantoms: ``dataset.json``, ``imagesTr``, ``labelsTr``, ``particles``.

    The same arguments give the same files, byte for byte; the first n cases do not depend on how many there are.

    Args:
        to: folder to make; it must not exist or be empty.
        joint: "ankle", "knee" or "shoulder"; it is the entries' ``domain`` as well.
        cases: number of subjects.
        seed: of the data set.
        size: voxels of every image.
        spacing: mm, None for the one that covers the joint.
        points: corresponding points a subject; ``particles/<case>.particles`` holds them in ITK's physical space (LPS mm).
        bone: name of the bone the points lie on; None for all.
        progress: called with a line after every case.

    Returns:
        the folder.

    Raises:
        ValueError: on an argument that :func:`make_phantom` refuses, or fewer than one case.
        DataError: when the folder is not empty.
    """
    if cases < 1:
        raise ValueError(f"cases must be at least 1, got {cases}")

    def fill(folder: Path) -> None:
        for name in ("imagesTr", "labelsTr", "particles"):
            (folder / name).mkdir()
        training = []
        for index in range(cases):
            phantom = make_phantom(joint, seed, index, size, spacing, points, bone)
            name = f"{joint}_{index:03d}"
            image, label, particles = f"imagesTr/{name}.nii.gz", f"labelsTr/{name}.nii.gz", f"particles/{name}.particles"
            write_nifti(folder / image, phantom.image, phantom.affine)
            write_nifti(folder / label, phantom.label, phantom.affine)
            write_particles(folder / particles, phantom.points * np.array([-1.0, -1.0, 1.0]))
            training.append({"image": f"./{image}", "label": f"./{label}", "domain": joint, "particles": f"./{particles}"})
            progress(f"{name}: {index + 1} of {cases}")
        description = {
            "name": f"{joint} phantoms",
            "description": f"Computer-made MR-like images of the {joint} with known labels and corresponding points (seed {seed})",
            "licence": LICENCE,
            "tensorImageSize": "3D",
            "modality": {"0": "MRI"},
            "labels": {str(value): text for value, text in phantom.label_names.items()},
            "numTraining": cases,
            "numTest": 0,
            "training": training,
            "test": [],
        }
        write_json(folder / "dataset.json", description)

    return fill_new_folder(to, fill)
