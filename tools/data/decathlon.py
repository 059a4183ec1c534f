"""Read a data set laid out as in the Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr/``, ``labelsTr/``.

Only ``dataset.json`` and folder listings are read here; the volumes themselves are looked at by :mod:`tools.data.checks`.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.data.checks import DataError

__all__ = [
    "Case",
    "Dataset",
    "case_name",
    "named_folder",
    "parse_dataset",
    "particle_name",
    "read_dataset",
    "read_description",
    "read_images",
    "unlisted_images",
]

SUMMARIES = ("mean", "union")  # in the columns of metrics.csv
_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Case:
    """One image and what is known of it.

    Attributes:
        name: file name of the image without ``.nii.gz`` or ``.nii``.
        image: path of the image.
        label: path of the label map, or None for an unlabelled case.
        domain: name of the intensity domain, where the data set has several.
        particles: path of the correspondence points (one ``x y z`` a line, LPS mm), where there are any.
        patient: whose image it is, where the data set says so.
    """

    name: str
    image: Path
    label: Path | None = None
    domain: str | None = None
    particles: Path | None = None
    patient: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set as its ``dataset.json`` describes it.

    Attributes:
        root: the folder.
        name: the data set's name, by default that of the folder.
        labels: label value to label name, with 0 the background, sorted by value.
        cases: the training list, sorted by name.
        test: the test list, sorted by name.
        slice_axis: array axis (0, 1 or 2) across the slices, where the data set says so.
        group_by: regular expression whose first match in a case's name is the patient (:func:`tools.data.splits.make_splits`), where
            the data set says so.
    """

    root: Path
    name: str
    labels: dict[int, str]
    cases: tuple[Case, ...]
    test: tuple[Case, ...] = ()
    slice_axis: int | None = None
    group_by: str | None = None


def case_name(path: str | os.PathLike) -> str:
    """File name without ``.nii.gz`` or ``.nii``."""
    name = Path(path).name
    for suffix in _SUFFIXES:
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name


def named_folder(directory: str | os.PathLike, wanted: str) -> Path:
    """The path of a data set that was named: an empty text is none, where ``Path`` would take the current folder.

    Raises:
        DataError: none was; the message says what is ``wanted``.
    """
    if not os.fspath(directory):
        raise DataError(f"no data set: give --dataset_dir, {wanted}")
    return Path(directory)


def particle_name(name: str, label: Path | None) -> str:
    """What a case's particle file is named by: the case, but nnU-Net's images ``<case>_0000`` have the name of their label map."""
    stem = name.removesuffix("_0000")
    return stem if label is None or case_name(label) == stem else name


def read_dataset(directory: str | os.PathLike) -> Dataset:
    """Read a Decathlon-style folder.

    Accepted besides the plain form: test entries as strings, nnU-Net's ``{"background": 0}`` way of writing labels, and nnU-Net's
    missing ``training`` list (``imagesTr/<case>_0000.nii.gz`` with ``labelsTr/<case>.nii.gz``). An entry without ``"label"`` is an
    unlabelled case. ``"domain"`` may stand in an entry or once for the whole data set. Particles are named by an entry's
    ``"particles"`` or found as ``particles/<case>.particles`` (:func:`particle_name`). Entries of the same ``"patient"`` are never
    divided between training and what is held out.

    Args:
        directory: the folder that holds ``dataset.json``.

    Raises:
        DataError: the folder or ``dataset.json`` is missing, unreadable or malformed.
    """
    return parse_dataset(directory, read_description(directory))


def read_description(directory: str | os.PathLike) -> dict[str, Any]:
    """The content of a folder's ``dataset.json``, not looked into further than :func:`parse_dataset` does.

    Raises:
        DataError: the folder or ``dataset.json`` is missing, no JSON object, or holds one key twice, or its ``"domain"`` is no string.
    """
    root = named_folder(directory, "a folder with dataset.json, imagesTr/ and labelsTr/")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    path = root / "dataset.json"
    if not path.is_file():
        raise DataError(f"{path}: missing; a data set is a folder with dataset.json, imagesTr/ and labelsTr/")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold a JSON object, not {type(content).__name__}")
    if not isinstance(content.get("domain"), (str, type(None))):
        raise DataError(f'{path}: "domain" must be a string, not {content["domain"]!r}')
    return content


def parse_dataset(directory: str | os.PathLike, content: Mapping[str, Any]) -> Dataset:
    """The data set of a folder, with a description (:func:`read_description`) that may have been changed since.

    Raises:
        DataError: the description is malformed.
    """
    root = Path(directory)
    path = root / "dataset.json"
    domain = content.get("domain")
    slice_axis = content.get("slice_axis")
    if slice_axis not in (None, 0, 1, 2) or isinstance(slice_axis, bool):
        raise DataError(f"{path}: slice_axis must be 0, 1 or 2, not {slice_axis!r}")
    group_by = content.get("group_by")
    if not isinstance(group_by, (str, type(None))):
        raise DataError(f"{path}: group_by must be a regular expression, not {group_by!r}")
    return Dataset(
        root=root,
        name=str(content.get("name") or root.resolve().name),
        labels=_labels(path, content.get("labels")),
        cases=_training_cases(root, path, content),
        test=_entries(root, path, content, "test", domain),
        slice_axis=slice_axis,
        group_by=group_by,
    )


def read_images(directory: str | os.PathLike) -> list[Case]:
    """The images to predict on, sorted by name.

    Args:
        directory: a Decathlon-style folder (its ``test`` list, or all images listed where that is absent or empty), any folder of
            ``*.nii.gz`` or ``*.nii`` files, or one such file. ``dataset.json`` needs no ``"labels"`` for it.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    root = named_folder(directory, "a folder of *.nii.gz, or one with dataset.json")
    if root.is_file() and root.name.endswith(_SUFFIXES):
        return [Case(case_name(root), root)]
    if (root / "dataset.json").is_file():
        # No labels are asked for: each domain may have its own, or there are none yet.
        content, path = read_description(root), root / "dataset.json"
        cases = list(_entries(root, path, content, "test", content.get("domain")) or _training_cases(root, path, content))
    elif root.is_dir():
        cases = [Case(case_name(path), path) for path in _volumes(root)]
    else:
        raise DataError(f"{root}: no such folder")
    if not cases:
        raise DataError(f"{root}: no image found (*.nii.gz, *.nii)")
    return cases


def unlisted_images(directory: str | os.PathLike) -> list[Path]:
    """The images in ``imagesTr`` that neither list of a folder's ``dataset.json`` names, sorted; none where it has no training list.

    Raises:
        DataError: see :func:`read_description` and :func:`parse_dataset`.
    """
    root, content = Path(directory), read_description(directory)
    if content.get("training") is None:
        return []
    listed = [case for key in ("training", "test") for case in _entries(root, root / "dataset.json", content, key, None)]
    named = {os.path.abspath(case.image) for case in listed}
    return [image for image in _volumes(root / "imagesTr") if os.path.abspath(image) not in named]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        # JSON readers keep the last in silence: of two domains, or two labels, one would vanish.
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return result


def _volumes(folder: Path) -> list[Path]:
    # Archives packed on a Mac hold "._name.nii.gz" beside every volume.
    return sorted((p for p in folder.glob("*.nii*") if p.name.endswith(_SUFFIXES) and not p.name.startswith(".")), key=case_name)


def _labels(path: Path, labels: Any) -> dict[int, str]:
    if not isinstance(labels, Mapping) or not labels:
        raise DataError(f'{path}: "labels" must map each label value to its name, such as {{"0": "background", "1": "bone"}}')
    result: dict[int, str] = {}
    for key, value in labels.items():
        number, name = (key, value) if _is_integer(key) else (value, key)
        if not _is_integer(number) or isinstance(name, (list, dict)):
            raise DataError(f'{path}: "labels" holds {key!r}: {value!r}; needed are one integer value and one name')
        if int(number) in result:
            raise DataError(f'{path}: "labels" names the value {int(number)} twice')
        if str(name) in result.values():
            raise DataError(f'{path}: "labels" gives two values the name {str(name)!r}; results go by names')
        if str(name) in SUMMARIES:
            raise DataError(f'{path}: "labels" has the name {str(name)!r}, which stands for all structures in results; choose another')
        result[int(number)] = str(name)
    if min(result) < 0:
        raise DataError(f'{path}: "labels" holds the negative value {min(result)}')
    result.setdefault(0, "background")
    if len(result) < 2:
        raise DataError(f'{path}: "labels" names no value beside the background')
    return dict(sorted(result.items()))


def _is_integer(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lstrip("+-").isdigit()
    return isinstance(value, int) and not isinstance(value, bool)


def _training_cases(root: Path, path: Path, content: Mapping[str, Any]) -> tuple[Case, ...]:
    if content.get("training") is None:
        return _listed_folder(root, path, content.get("domain"))
    return _entries(root, path, content, "training", content.get("domain"))


def _entries(root: Path, path: Path, content: Mapping[str, Any], key: str, domain: str | None) -> tuple[Case, ...]:
    entries = content.get(key) or []
    if not isinstance(entries, list):
        raise DataError(f'{path}: "{key}" must be a list')
    cases = []
    for index, entry in enumerate(entries):
        if isinstance(entry, str):
            entry = {"image": entry}
        if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str):
            raise DataError(f'{path}: "{key}" entry {index} has no "image" (one path)')
        for field in ("label", "domain", "particles"):
            if not isinstance(entry.get(field), (str, type(None))):
                raise DataError(f'{path}: "{key}" entry {index}: "{field}" must be a string, not {entry[field]!r}')
        patient = entry.get("patient")
        if not isinstance(patient, (str, int, type(None))) or isinstance(patient, bool):
            raise DataError(f'{path}: "{key}" entry {index}: "patient" must be a string or a whole number, not {patient!r}')
        image = root / entry["image"]
        if not image.name.endswith(_SUFFIXES):
            raise DataError(f"{image}: not a NIfTI file (.nii.gz, .nii)")
        name = case_name(image)
        label = root / entry["label"] if entry.get("label") else None
        particles = _particles(root, particle_name(name, label), entry.get("particles"))
        cases.append(Case(name, image, label, entry.get("domain") or domain, particles, None if patient is None else str(patient)))
    return tuple(sorted(cases, key=lambda case: case.name))


def _listed_folder(root: Path, path: Path, domain: str | None) -> tuple[Case, ...]:
    images = root / "imagesTr"
    if not images.is_dir():
        raise DataError(f'{path}: has no "training" list, and there is no folder imagesTr')
    cases = []
    for image in _volumes(images):
        name = case_name(image)
        if name.endswith("_0001"):
            raise DataError(f"{image}: a second channel; only images of one channel are supported")
        stem = name.removesuffix("_0000")
        label = next((p for p in (root / "labelsTr" / (stem + suffix) for suffix in _SUFFIXES) if p.is_file()), None)
        cases.append(Case(name, image, label, domain, _particles(root, particle_name(name, label), None)))
    taken = {case.label for case in cases}
    for label in _volumes(root / "labelsTr") if (root / "labelsTr").is_dir() else ():
        if label not in taken:
            near = difflib.get_close_matches(label.name, [case.image.name for case in cases], n=1, cutoff=0)
            raise DataError(f"{label}: no image in {images} has its name" + (f"; the nearest is {near[0]}" if near else ""))
    return tuple(sorted(cases, key=lambda case: case.name))


def _particles(root: Path, name: str, entry: str | None) -> Path | None:
    if entry:
        return root / entry
    path = root / "particles" / f"{name}.particles"
    return path if path.is_file() else None
