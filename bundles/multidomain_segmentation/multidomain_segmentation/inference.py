"""Volumes in, volumes out: which images are segmented as which domain, and the way to slices and back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, SaveImaged, Transform

from multidomain_segmentation.prototypes import DomainFinder
from multidomain_segmentation.union import union_channels, union_names
from tools.bundle.transforms import storable
from tools.data.checks import DataError, check_images
from tools.data.decathlon import Case, named_folder, read_description, read_images
from tools.data.domain_plan import DomainPlan
from tools.data.domains import AUTO, dataset_folders, domain_name
from tools.data.files import AtomicNibabelWriter, write_csv
from tools.data.geometry import grid_mapping, loading
from tools.data.slices import slice_preprocessing, stack_slices

__all__ = ["images_of", "images_to_segment", "postprocessing", "preprocessing", "write_domains"]


def images_of(dataset_dir: str | os.PathLike) -> dict[str, list[Case]]:
    """The images to predict on: name of the data set's folder to its cases (:func:`tools.data.decathlon.read_images`).

    Args:
        dataset_dir: a Decathlon-style folder, a folder of such, or a folder of ``*.nii.gz``; what is one data set has the name "".

    Returns:
        the cases, whose ``domain`` is what :func:`tools.data.domains.read_domains` would call it: of the case's entry, or of the data
        set, or in a folder of data sets the name of the data set's folder.

    Raises:
        DataError: there is no image.
    """
    root = named_folder(dataset_dir, "a data set, a folder of data sets, or a folder of *.nii.gz")
    folders = dataset_folders(root) if root.is_dir() and not (root / "dataset.json").is_file() else []
    result = {}
    for folder in folders or [root]:
        name = folder.name if folders else None
        if (folder / "dataset.json").is_file():
            name = read_description(folder).get("domain") or name
        cases = [(case, case.domain or name) for case in read_images(folder)]
        result[folder.name if folders else ""] = [replace(case, domain=of and domain_name(of)) for case, of in cases]
    return result


def images_to_segment(
    dataset_dir: str | os.PathLike, plan: DomainPlan, finder: DomainFinder, domain: str = AUTO
) -> list[dict[str, str | float | None]]:
    """The images to segment, checked, as MONAI data dictionaries.

    Args:
        dataset_dir: see :func:`images_of`. Where some of the images are described as of ``domain``, these alone are taken.
        plan: the plan of all domains.
        finder: finds the domain of an image.
        domain: name of the domain of all images, or "auto" to find out that of each.

    Returns:
        "image" (path), "name" (of the answer's file), "domain", and "distance", "threshold" and "confidence" of the domain, None where
        it was named. A case name that stands in several data sets has the name of its data set in front.

    Raises:
        DataError: there is no image, one has a fault or is like no domain, or the domain is unknown.
    """
    if domain != AUTO:
        plan.index(domain)
    found = images_of(dataset_dir)
    described = {folder: [case for case in cases if case.domain == domain] for folder, cases in found.items()}
    found = {folder: cases for folder, cases in described.items() if cases} or found
    for cases in found.values():
        check_images(cases)
    times = Counter(case.name for cases in found.values() for case in cases)
    result = []
    for folder, cases in found.items():
        for case in cases:
            answer = finder(case.image) if domain == AUTO else None
            name = f"{folder}_{case.name}" if times[case.name] > 1 else case.name
            result.append(
                {
                    "image": str(case.image),
                    "name": name,
                    "domain": domain if answer is None else answer.domain,
                    "distance": None if answer is None else answer.distance,
                    "threshold": None if answer is None else answer.threshold,
                    "confidence": None if answer is None else answer.confidence,
                }
            )
    names = Counter(case["name"] for case in result)
    for case in result:
        if names[case["name"]] > 1:
            raise DataError(f"{case['image']}: two answers would be named {case['name']}")
    return result


def write_domains(output_dir: str | os.PathLike, cases: Sequence[Mapping[str, Any]]) -> None:
    """Write ``domains.csv``: case, domain, distance, threshold and confidence of :func:`images_to_segment`'s cases."""
    columns = ("domain", "distance", "threshold", "confidence")
    rows = [{"case": case["name"]} | {key: _rounded(case[key]) for key in columns} for case in cases]
    write_csv(Path(output_dir) / "domains.csv", rows, ("case", *columns))


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


class _Slices(Transform):
    """From "image" (path) to its slices (1, S, H, W), cut as its domain is; the domain is noted in ``meta["domain"]``.

    Entries without a "domain" come from a program that knows nothing of domains (MONAI Label): they get the configured one, or the one
    that is found, and are answered in the labels of the union.
    """

    def __init__(self, plan: DomainPlan, finder: DomainFinder, domain: str) -> None:
        self.plan, self.finder, self.domain = plan, finder, domain
        self.load = Compose(loading(["image"]))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = {key: value for key, value in data.items() if key not in ("distance", "threshold", "confidence")}
        given = result.get("domain")
        if given is None:
            given = self.domain if self.domain != AUTO else self.finder(result["image"]).domain
            result["labels"] = "union"
        else:
            result["labels"] = "domain"
        self.plan.index(given)
        result["image"] = slice_preprocessing(self.plan.domains[given], keys=("image",), load=False)(self.load({"image": result["image"]}))[
            "image"
        ]
        result["image"].meta["domain"] = result["domain"] = given
        return result


def preprocessing(plan: DomainPlan, finder: DomainFinder, domain: str = AUTO) -> Compose:
    """From a path to slices.

    Args:
        plan: the plan of all domains.
        finder: finds the domain of an image.
        domain: of entries that name none; "auto" to find it.

    Returns:
        a Compose that gives "image" (1, S, H, W), a MetaTensor, and "domain".
    """
    return Compose([_Slices(plan, finder, domain)])


class _Volume(Transform):
    """From logits "pred" (C, S, H, W), of the domain's classes or of the union's, to label values (1, X, Y, Z) in the file's voxels."""

    def __init__(self, plan: DomainPlan, dtype: np.dtype) -> None:
        self.plan, self.dtype = plan, dtype

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result, image = dict(data), data["image"]
        name = result.get("domain") or image.meta["domain"]
        plan, channels = self.plan.domains[name], list(union_channels(self.plan, name))
        scores = torch.as_tensor(result["pred"])
        scores = (scores.as_tensor() if isinstance(scores, MetaTensor) else scores).float().softmax(0)
        if result.get("labels") == "union":
            scores = scores[channels]
        mapping = grid_mapping(image, plan)
        values = stack_slices(scores, mapping)
        if result.get("labels") == "union":
            values = torch.tensor(channels, device=values.device)[plan.to_channels(values)]
        meta = {"affine": torch.from_numpy(mapping.native_affine), "original_affine": mapping.native_affine}
        meta["filename_or_obj"] = f"{result['name']}.nii.gz" if result.get("name") else image.meta["filename_or_obj"]
        result["pred"] = MetaTensor(storable(values[None].cpu(), self.dtype), meta=meta)
        return result


def postprocessing(plan: DomainPlan, output_dir: str | os.PathLike) -> Compose:
    """From logits to label values in the image's geometry, written as ``<case>_seg.nii.gz``.

    Args:
        plan: the plan of all domains.
        output_dir: folder for the files.
    """
    values = [value for domain in plan.domains.values() for value in domain.label_values]
    dtype = np.result_type(*(np.min_scalar_type(value) for value in (*values, len(union_names(plan)))))
    return Compose(
        [
            _Volume(plan, dtype),
            SaveImaged(
                "pred",
                output_dir=output_dir,
                output_postfix="seg",
                output_dtype=dtype,
                separate_folder=False,
                resample=False,
                writer=AtomicNibabelWriter,
                print_log=False,
            ),
        ]
    )
