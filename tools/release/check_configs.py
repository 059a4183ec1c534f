"""Checks of what configs refer to: properties of a workflow, expressions, targets, and the packages behind all code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.config_item import ComponentLocator
from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties
from monai.bundle.utils import ID_SEP_KEY
from monai.utils import BundleProperty, BundlePropertyConfig

import tools
from tools.data.checks import DataError, first_line, read_json
from tools.release.bundle import SHARED, Bundle
from tools.release.configs import expressions, parse_expression, targets
from tools.release.faults import Fault
from tools.release.imports import closure, imported, module_name, parse_module
from tools.release.pack import config_roots

__all__ = ["check_expressions", "check_properties", "check_requirements", "check_targets"]

_WORKFLOWS = (("train.json", TrainProperties), ("inference.json", InferProperties))
#: what parts of MONAI import only where it is installed, told from the names that a bundle uses
_BEHIND_MONAI = (
    (re.compile(r"monai\.(engines|handlers)\b"), "pytorch-ignite"),
    (re.compile(r"\bTensorBoard"), "tensorboard"),
    (re.compile(r"\b(Swin|ViT|UNETR)"), "einops"),
    (re.compile(r"\bNibabel"), "nibabel"),
    (re.compile(r"\bITK"), "itk"),
)
_COMMAND_LINE = "fire"  # of python -m monai.bundle
_BASE = ("monai", "torch", "numpy")  # they have version keys of their own


def check_properties(bundle: Bundle) -> Iterator[Fault]:
    """What MONAI requires of the metadata, of a training and of an inference workflow."""
    for name, properties in _WORKFLOWS:
        path = bundle.root / "configs" / name
        if not path.is_file():
            continue
        parser = ConfigParser()
        try:
            parser.read_config(str(path))
            parser.read_meta(str(bundle.root / "configs" / "metadata.json"))
        except (ValueError, TypeError, KeyError) as error:
            yield Fault("property", f"configs/{name}", f"not readable as a config ({first_line(error)})")
            continue
        for title, about in {**properties, **MetaProperties}.items():
            key = about[BundlePropertyConfig.ID].replace("#", ID_SEP_KEY)
            if about[BundleProperty.REQUIRED] and key not in parser:
                yield Fault("property", f"configs/{name}", f"no {key.replace(ID_SEP_KEY, '#')}, which MONAI takes as the {title}")


def check_expressions(bundle: Bundle) -> Iterator[Fault]:
    """Whether every expression is Python."""
    for place, config in _configs(bundle):
        for expression in expressions(config):
            try:
                parse_expression(expression, Path(place))
            except DataError as error:
                yield Fault("expression", place, str(error).partition(": ")[2])


def check_targets(bundle: Bundle) -> Iterator[Fault]:
    """Whether every ``_target_`` leads to something that can be called. Imports the bundle: see :mod:`tools.release.isolation`."""
    for place, config in _configs(bundle):
        for target in dict.fromkeys(targets(config)):
            reason = _unresolved(target)
            if reason:
                yield Fault("target", place, f"{target}: {reason}")


def check_requirements(bundle: Bundle) -> Iterator[Fault]:
    """Whether the metadata require every package that code and configs import, inside of functions too."""
    packages = {name: bundle.root / name for name in bundle.packages}
    if not bundle.is_packed:
        packages[SHARED] = Path(tools.__file__).parent
    used: dict[str, str] = {_COMMAND_LINE: "the command line of monai.bundle"}
    try:
        roots = list(bundle.packages)
        for package in bundle.packages:
            roots += [module_name(path, bundle.root) for path in sorted((bundle.root / package).rglob("*.py"))]
        for place, config in _configs(bundle):
            roots += config_roots(config, Path(place), packages)
            for target in targets(config):
                resolved = _resolved(target)
                used |= _distributions(resolved, place, packages) if "." in resolved else {}
            for expression in expressions(config):
                for name in imported(parse_expression(expression, Path(place))):
                    used |= _distributions(name, place, packages)
        for module, path in closure(roots, packages).items():
            for name in imported(parse_module(path), module, path.name == "__init__.py"):
                for distribution, where in _distributions(name, module, packages).items():
                    used.setdefault(distribution, where)
    except DataError:
        return  # checks of their own tell that a target or an expression is wrong
    declared = {_normal(name) for name in bundle.metadata.get("required_packages_version", {})} | set(_BASE)
    told = set()
    for package, where in sorted(used.items()):
        names = _names(package)
        if not {_normal(name) for name in names} & declared and names[0] not in told:
            told.add(names[0])
            message = f"required_packages_version lacks {' or '.join(names)}, used by {where}"
            yield Fault("requirement", "configs/metadata.json", message)


def _configs(bundle: Bundle) -> Iterator[tuple[str, Any]]:
    for path in bundle.configs():
        try:
            yield path.relative_to(bundle.root).as_posix(), read_json(path)
        except DataError:
            continue  # told by check_files


def _distributions(name: str, where: str, own: Mapping[str, Path]) -> dict[str, str]:
    """What must be installed for an import of ``name``, as pip or as Python calls it: to where it is imported."""
    top = name.split(".")[0]
    if not top or top in own or top in sys.stdlib_module_names:
        return {}
    found = {distribution: where for pattern, distribution in _BEHIND_MONAI if top == "monai" and pattern.search(name)}
    return found | {top: where}


@cache
def _known_distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


def _names(package: str) -> list[str]:
    """What pip may call that which is imported as ``package``: ``scikit-image`` for ``skimage``, ``itk`` or ``itk-core`` for ``itk``."""
    return list(dict.fromkeys([*sorted(_known_distributions().get(package, [])), package]))


@cache
def _locator() -> ComponentLocator:
    return ComponentLocator(excludes=[])


def _resolved(target: str) -> str:
    try:
        resolved = ConfigComponent(config={"_target_": target}, locator=_locator()).resolve_module_name()
    except (ModuleNotFoundError, ValueError):
        return target
    if isinstance(resolved, str):
        return resolved
    return f"{resolved.__module__}.{resolved.__qualname__}"


def _unresolved(target: str) -> str | None:
    try:
        found = locate(_resolved(target))
    except ErrorDuringImport as error:
        return f"its module cannot be imported ({first_line(error.value)})"
    if found is None:
        return "nothing of this name"
    return None if callable(found) else "cannot be called"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
