"""Several data sets as one: the domains, each with cases, labels and a slice axis of its own.

A domain is a :class:`~tools.data.decathlon.Dataset` that bears the domain's name, so that everything that works on a data set
(checks, splits) works on a domain.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from tools.data.checks import DataError, check_dataset
from tools.data.decathlon import Case, Dataset, named_folder, parse_dataset, read_description
from tools.data.plan import nearest_or_raise

__all__ = ["AUTO", "Domains", "check_domains", "chosen_names", "dataset_folders", "domain_name", "read_domains"]

Domains = dict[str, Dataset]

AUTO = "auto"  # in the place of a name it asks for the nearest domain


def domain_name(name: Any) -> str:
    """A domain's name as it is compared: text, for a name of digits is a number on a command line, and composed (NFC).

    Folders made on a Mac write an umlaut as a letter and a mark (NFD), keyboards write one letter.
    """
    return unicodedata.normalize("NFC", str(name))


def chosen_names(domains: str | int | Sequence[str | int] | None) -> tuple[str, ...]:
    """Names of domains as a command line hands them over: one, several with commas between, or a list; none for None."""
    names = domains.split(",") if isinstance(domains, str) else ensure_tuple(domains) if domains is not None else ()
    return tuple(dict.fromkeys(domain_name(name).strip() for name in names if str(name).strip()))


def read_domains(dataset_dir: str | os.PathLike) -> Domains:
    """Read the domains of a folder; only descriptions and listings are looked at (:func:`check_domains` reads the volumes).

    Args:
        dataset_dir: one of

            - a folder of Decathlon-style data sets, each a domain named as its sub-folder (sub-folders without ``dataset.json`` and
              hidden ones do not count);
            - one Decathlon-style folder whose entries have a ``"domain"`` key. ``"domains": {name: {...}}`` in its ``dataset.json``
              may give any of ``labels``, ``slice_axis`` and ``group_by`` for one domain; what it does not give all domains share;
            - one plain data set: a single domain, named as the folder.

            A ``"domain"`` in ``dataset.json`` goes before the name of the folder.

    Returns:
        name to data set, ordered by name; every case holds the name in ``domain``.

    Raises:
        DataError: there is no data set, a description is malformed, a domain has no training case, a case has no domain or an
            unknown one, two domains have one name, or a name cannot serve as one.
    """
    root = named_folder(dataset_dir, "a folder of data sets, each with dataset.json, imagesTr/ and labelsTr/")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folders = [root] if (root / "dataset.json").is_file() else dataset_folders(root)
    if not folders:
        raise DataError(f"{root}: no data set; needed is dataset.json here, or sub-folders that have one, each a domain")
    domains: Domains = {}
    for folder in folders:
        for dataset in _domains_of(folder):
            path = folder / "dataset.json"
            if dataset.name in domains:
                raise DataError(f"{path}: two domains are named {dataset.name!r} (the other is in {domains[dataset.name].root})")
            if not dataset.name.strip() or dataset.name == AUTO or any(c in dataset.name for c in "/\\."):
                raise DataError(f"{path}: {dataset.name!r} cannot be the name of a domain")
            if not dataset.cases:
                raise DataError(f"{path}: the domain {dataset.name!r} has no training case")
            domains[dataset.name] = dataset
    return dict(sorted(domains.items()))


def dataset_folders(root: Path) -> list[Path]:
    """The data sets in a folder: its sub-folders that have a ``dataset.json`` and are not hidden, sorted."""
    return sorted(path for path in root.iterdir() if (path / "dataset.json").is_file() and not path.name.startswith("."))


def check_domains(domains: Mapping[str, Dataset], need_labels: int = 1, need_cases: int = 1) -> None:
    """Check every training case of every domain; stop at the first fault.

    Args:
        domains: what :func:`read_domains` read.
        need_labels: least number of labelled cases of each domain.
        need_cases: least number of cases of each domain.

    Raises:
        DataError: see :func:`tools.data.checks.check_dataset`; the message ends with the domain.
    """
    for name, dataset in domains.items():
        try:
            check_dataset(dataset, need_labels=need_labels, need_cases=need_cases)
        except DataError as error:
            raise DataError(f"{error} (domain {name!r})") from error


def _domains_of(folder: Path) -> list[Dataset]:
    """The domains of one Decathlon-style folder."""
    content = _with_names(read_description(folder))
    path = folder / "dataset.json"
    declared = content.get("domains", {})
    if not isinstance(declared, Mapping) or not all(isinstance(value, Mapping) for value in declared.values()):
        raise DataError(f'{path}: "domains" must map each name to an object, such as {{"knee": {{"labels": {{...}}, "slice_axis": 2}}}}')
    for value in declared.values():
        nearest_or_raise(f'{path}: key in "domains"', value, ("labels", "slice_axis", "group_by"))
    listed = content.get("training")
    entries = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    used = {entry["domain"] for entry in entries if isinstance(entry.get("domain"), str) and entry["domain"]}
    if not declared and not used:
        dataset = parse_dataset(folder, content)
        # Not resolved: a folder of links names its domains as the links.
        name = content.get("domain") or domain_name(Path(os.path.abspath(folder)).name)
        return [_as_domain(name, dataset, dataset.cases, dataset.test)]

    result = []
    for name in sorted({*declared, *used, *([content["domain"]] if content.get("domain") and not declared else [])}):
        dataset = parse_dataset(folder, {**content, **declared.get(name, {})})
        for case in dataset.cases:
            _check_domain(path, case, declared)
        cases = tuple(case for case in dataset.cases if case.domain == name)
        # Images to predict on need no domain: it may be found out.
        result.append(_as_domain(name, dataset, cases, tuple(case for case in dataset.test if case.domain == name)))
    return [dataset for dataset in result if dataset.cases or dataset.name in declared]


def _with_names(content: dict[str, Any]) -> dict[str, Any]:
    """A description in which every name of a domain is as :func:`domain_name` writes it."""
    content = _named(content)
    content |= {key: [_named(entry) for entry in content[key]] for key in ("training", "test") if isinstance(content.get(key), list)}
    if isinstance(content.get("domains"), Mapping):
        content["domains"] = {domain_name(name): value for name, value in content["domains"].items()}
    return content


def _named(entry: Any) -> Any:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("domain"), str):
        return entry
    return {**entry, "domain": domain_name(entry["domain"])}


def _check_domain(path: Path, case: Case, declared: Mapping[str, Any]) -> None:
    if case.domain is None:
        raise DataError(f'{path}: {case.name} has no "domain", but other entries have')
    if declared and case.domain not in declared:
        raise DataError(f'{path}: {case.name} has the domain {case.domain!r}, "domains" has only {sorted(declared)}')


def _as_domain(name: str, dataset: Dataset, cases: tuple[Case, ...], test: tuple[Case, ...]) -> Dataset:
    return replace(
        dataset,
        name=name,
        cases=tuple(replace(case, domain=name) for case in cases),
        test=tuple(replace(case, domain=name) for case in test),
    )
