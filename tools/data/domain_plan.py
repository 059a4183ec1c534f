"""The plan of a slice-wise model of several domains: for each its labels, its slices and its intensities.

The counterpart of :mod:`tools.data.plan`, saved under the same name ``plan.json``. What differs: a network sees two axes only, so the
third keeps the voxels it has, and there is no common grid: each domain has a spacing in the plane (its median, so that most
slices are not resampled at all), and slices of any size come in.

Spacings are only ever compared with each other within one domain: headers that give relative numbers instead of millimetres serve
as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import io_orientation

from tools.data.checks import DataError, read_json
from tools.data.decathlon import Dataset
from tools.data.domains import domain_name
from tools.data.files import as_read, write_json
from tools.data.plan import (
    INTENSITY,
    MULTIPLE,
    LabelValues,
    grid_along,
    nearest_or_raise,
    positive_numbers,
    read_header,
    rounded_up,
    settle_fields,
    turn_to,
)

__all__ = ["DomainPlan", "SlicePlan", "check_slices", "make_domain_plan"]

VERSION = 1
COARSER = 1.01  # from this ratio of spacings on an axis counts as coarser than another


@dataclass(frozen=True)
class SlicePlan(LabelValues):
    """How one domain's volumes become slices, and what their labels are.

    Attributes:
        labels: label value in the data set to name, with 0 the background. Channel c of the domain's head stands for the c-th
            smallest value.
        slice_axis: axis across the slices, 0, 1 or 2, of a volume brought to ``orientation``.
        orientation: axis codes, such as "RAS", or None: the axes as stored, where files differ in how slices lie in the world.
        spacing: of the pixels along the two axes in the plane, in the order of the volume's axes; the unit is that of the headers.
        intensity: percentiles of a volume that become 0 and 1 (values beyond are clipped).

    Raises:
        ValueError: a field is out of its range; the message names it.
    """

    labels: dict[int, str]
    slice_axis: int = 2
    orientation: str | None = "RAS"
    spacing: tuple[float, float] = (1.0, 1.0)
    intensity: dict[str, float] = field(default_factory=lambda: dict(INTENSITY))

    def __post_init__(self) -> None:
        settle_fields(self, axes=2)
        if isinstance(self.slice_axis, bool) or self.slice_axis not in (0, 1, 2):
            raise ValueError(f"slice_axis must be 0, 1 or 2, not {self.slice_axis!r}")

    def axcodes(self, affine: np.ndarray) -> str:
        """Orientation ("SRA") in which a volume of this affine (4, 4) has its slices along the first axis."""
        codes = self.orientation or "".join(nib.aff2axcodes(affine))
        return codes[self.slice_axis] + codes[: self.slice_axis] + codes[self.slice_axis + 1 :]


@dataclass(frozen=True)
class DomainPlan:
    """What preprocessing and network construction need to know of all domains.

    Attributes:
        domains: name to its :class:`SlicePlan`. The order is that of the network's norms and heads: a domain's number is its place.
        patch_size: rows and columns of a training crop, multiples of 16.
        extra: what a bundle adds, such as network sizes.
        version: version of this format.

    Raises:
        ValueError: a field is out of its range; the message names it, and the domain.
    """

    domains: dict[str, SlicePlan]
    patch_size: tuple[int, int] = (128, 128)
    extra: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        if self.version != VERSION:
            raise ValueError(f"plan version {self.version} is not supported (this is version {VERSION})")
        if not isinstance(self.domains, Mapping) or not self.domains:
            raise ValueError("domains must map at least one name to its plan")
        set_field(self, "domains", {str(name): _slice_plan(name, value) for name, value in self.domains.items()})
        set_field(self, "patch_size", positive_numbers("patch_size", self.patch_size, 2, int))
        set_field(self, "extra", as_read(self.extra))
        if any(n % MULTIPLE for n in self.patch_size):
            raise ValueError(f"patch_size must hold multiples of {MULTIPLE}, not {self.patch_size}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the domains in the order of their numbers."""
        return tuple(self.domains)

    @property
    def num_classes(self) -> dict[str, int]:
        """Name of each domain to its number of classes, with the background."""
        return {name: plan.num_classes for name, plan in self.domains.items()}

    def index(self, name: str) -> int:
        """Number of a domain.

        Raises:
            DataError: the plan has no such domain; the nearest one is named.
        """
        nearest_or_raise("domain", {name: None}, self.domains)
        return self.names.index(name)

    def extended(self, domains: Mapping[str, SlicePlan]) -> DomainPlan:
        """This plan with further domains, numbered after those it has.

        Raises:
            DataError: a domain is there already.
        """
        for name in domains:
            if name in self.domains:
                raise DataError(f"the plan has a domain {name!r} already")
        return replace(self, domains={**self.domains, **domains})

    def check(self, domains: Mapping[str, Dataset]) -> None:
        """Compare with domains read from a folder, which must be some of the plan's, with its labels.

        Raises:
            DataError: a domain is unknown or has other labels.
        """
        for name, dataset in domains.items():
            path = dataset.root / "dataset.json"
            nearest_or_raise(f"domain in {path}:", {name: None}, self.domains)
            if dataset.labels != self.domains[name].labels:
                raise DataError(f"{path}: labels {dataset.labels} of the domain {name!r} are not the model's {self.domains[name].labels}")

    def save(self, path: str | os.PathLike) -> None:
        """Write the plan as JSON, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike) -> DomainPlan:
        """Read a plan.

        Raises:
            DataError: the file is missing, no JSON, or holds no valid plan of domains.
        """
        path = Path(path)
        content = read_json(path)
        if not isinstance(content, dict) or "domains" not in content:
            raise DataError(f'{path}: not a plan of several domains (no "domains")')
        try:
            nearest_or_raise("plan key", content, [f.name for f in fields(cls)])
            return cls(**content)
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: {error}") from error


def make_domain_plan(
    domains: Mapping[str, Dataset],
    patch_size: Any = None,
    intensity: Mapping[str, float] | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> DomainPlan:
    """Make the plan of several domains from the headers of their training images.

    The slice axis is the ``slice_axis`` of ``dataset.json``, an array axis of the files as stored. Where in all files of a domain it is
    the same axis of the world, the plan notes that one, and images stored otherwise are cut alike; where it is not (oblique scans
    around a diagonal), the axes count as stored. Without a ``slice_axis`` the axis of the coarsest median spacing is taken,
    and the last one (from below upwards) where no single axis is coarser than the others.

    Args:
        domains: name to data set; its images must have passed :func:`tools.data.domains.check_domains`.
        patch_size: see :class:`DomainPlan`; one number or two.
        intensity: see :class:`SlicePlan`, for every domain; may be given in part.
        overrides: name of a domain to fields of its :class:`SlicePlan`; None leaves a field to the data. A ``slice_axis`` given
            without an ``orientation`` takes the place of that of ``dataset.json``.
        extra: see :class:`DomainPlan`.

    Raises:
        DataError: an override has an unknown name (the nearest one is named) or a value out of range.
    """
    overrides = _overrides(overrides, domains)
    try:
        return DomainPlan(
            domains={
                name: _planned(name, dataset, {"intensity": dict(intensity or {}), **overrides.get(name, {})})
                for name, dataset in domains.items()
            },
            **_given({"patch_size": patch_size, "extra": None if extra is None else dict(extra)}),
        )
    except DataError:
        raise
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"plan: {error}") from error


def check_slices(plan: DomainPlan, domains: Mapping[str, Dataset], overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Refuse slices that data sets or overrides ask for and that are not those of a model's plan, by which it goes on learning.

    Args:
        plan: the model's.
        domains: name to data set, some of the plan's; its images must have passed :func:`tools.data.domains.check_domains`.
        overrides: see :func:`make_domain_plan`.

    Raises:
        DataError: an image would be cut along another axis than the one declared, or an override is not what the plan has.
    """
    overrides = _overrides(overrides, domains)
    for name, dataset in domains.items():
        own, given = plan.domains[name], dict(overrides.get(name, {}))
        nearest_or_raise(f"override of the domain {name!r}:", given, [f.name for f in fields(SlicePlan)])
        declared, where, more = dataset.slice_axis, dataset.root / "dataset.json", "; to go on with that, say it by --slice_plans"
        if "slice_axis" in given and "orientation" not in given:
            declared, where, more = given.pop("slice_axis"), "slice_plans", ""
        for key, value in given.items():
            try:
                wanted = getattr(_slice_plan(name, {**asdict(own), key: value}), key)
            except ValueError as error:
                raise DataError(f"slice_plans: {error}") from error
            if wanted != getattr(own, key):
                raise DataError(f"slice_plans: {key} {value} of the domain {name!r}, but the model goes on with its {getattr(own, key)}")
        for case in dataset.cases if declared is not None else ():
            _, affine = read_header(case)
            axis = int(np.flatnonzero(turn_to(own.axcodes(affine), affine)[:, 0] == 0)[0])
            if axis != declared:
                asked = f"{where}: slice_axis {declared} of the domain {name!r}"
                raise DataError(f"{asked}, but the model goes on with {axis}, as {case.image.name} lies{more}")


def _overrides(given: Any, domains: Mapping[str, Dataset]) -> dict[str, dict[str, Any]]:
    """Overrides by domain, as a command line hands them over, without those that leave a field to the data."""
    given = {} if given is None else given
    if not isinstance(given, Mapping) or not all(value is None or isinstance(value, Mapping) for value in given.values()):
        form = '{"knee": {"slice_axis": 2}}'
        raise DataError(f"slice_plans must map names of domains to fields of their plans, such as {form}, not {given!r}")
    overrides = {domain_name(name): _given(value or {}) for name, value in given.items()}
    nearest_or_raise("domain in slice_plans:", overrides, domains)
    return overrides


def _planned(name: str, dataset: Dataset, given: dict[str, Any]) -> SlicePlan:
    nearest_or_raise(f"override of the domain {name!r}:", given, [f.name for f in fields(SlicePlan)])
    given = {"labels": dataset.labels, **given}
    _slice_plan(name, given)  # checks what was given before the headers are read
    headers = [read_header(case) for case in dataset.cases]
    if "orientation" not in given:
        given["orientation"], given["slice_axis"] = _slice_axis(
            [affine for _, affine in headers], given.get("slice_axis", dataset.slice_axis)
        )
    elif "slice_axis" not in given:
        raise ValueError(f"domain {name!r}: an orientation needs a slice_axis, which counts the axes in it")
    plan = _slice_plan(name, given)
    if "spacing" not in given:
        # The first axis is the one across the slices.
        spacings = np.array([grid_along(shape, affine, plan.axcodes(affine))[1][1:] for shape, affine in headers])
        plan = replace(plan, spacing=tuple(rounded_up(value) for value in np.median(spacings, axis=0)))
    return plan


def _slice_axis(affines: list[np.ndarray], declared: int | None) -> tuple[str | None, int]:
    """Orientation and axis across the slices in it."""
    if declared is not None:
        axes = {int(io_orientation(affine)[declared, 0]) for affine in affines}
        return ("RAS", axes.pop()) if len(axes) == 1 else (None, declared)
    spacing = np.median([grid_along(np.ones(3), affine, "RAS")[1] for affine in affines], axis=0)
    coarsest = int(spacing.argmax())
    return "RAS", coarsest if spacing[coarsest] > COARSER * np.delete(spacing, coarsest).max() else 2


def _slice_plan(name: str, value: Any) -> SlicePlan:
    if isinstance(value, SlicePlan):
        return value
    try:
        value = {key: entry for key, entry in value.items() if key != "size"}  # earlier plans had one, which nothing followed
        nearest_or_raise("key", value, [f.name for f in fields(SlicePlan)])
        return SlicePlan(**value)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"domain {name!r}: {error}") from error


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}
