"""Checks of a bundle's files and metadata; nothing of the bundle is imported."""

from __future__ import annotations

import ast
import json
import logging
import logging.handlers
from collections.abc import Iterator, Mapping
from configparser import Error as ConfigError
from configparser import RawConfigParser
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft201909Validator
from jsonschema.exceptions import best_match

import tools
from tools.data.checks import DataError, read_json
from tools.release.bundle import Bundle, check_name
from tools.release.evaluation import EVALUATION, differences
from tools.release.faults import Fault
from tools.release.pack import packed_files
from tools.release.versions import Version

__all__ = ["LARGEST_FILE", "check_files", "check_metadata", "check_metrics", "check_packing", "check_pages", "schema_errors"]

LARGEST_FILE = 25 * 2**20  # bytes; the Model Zoo takes no larger file into its repository
FILES = (
    "LICENSE",
    *(f"configs/{name}.json" for name in ("metadata", "train", "inference", "evaluate", "multi_gpu_train")),
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
)
_STREAMS = ("sys.stdout", "sys.stderr")
_LONGEST = 300  # letters of a message; jsonschema repeats whole documents


def check_files(root: Path) -> Iterator[Fault]:
    """The Model Zoo's rules of files: those that must be there, their size, JSON that can be read, a logging config that can be used."""
    try:
        check_name(root.name)
    except DataError as error:
        yield Fault("name", root.name, str(error))
    for name in FILES:
        if not (root / name).is_file():
            yield Fault("file-missing", name, "missing")
    for path in sorted(root.rglob("*")):
        place = path.relative_to(root).as_posix()
        if not path.is_file() or place.startswith("output/"):
            continue
        if path.stat().st_size > LARGEST_FILE:
            yield Fault("file-size", place, f"{path.stat().st_size / 2**20:.0f} MiB, at most {LARGEST_FILE / 2**20:.0f} are taken")
        if path.suffix == ".json":
            try:
                read_json(path)
            except DataError as error:
                yield Fault("json", place, str(error))
    if (root / "configs" / "logging.conf").is_file():
        yield from _check_logging(root / "configs" / "logging.conf")


def check_metadata(bundle: Bundle) -> Iterator[Fault]:
    """The metadata against the schema, and what the Model Zoo asks for beyond it."""
    place = "configs/metadata.json"
    for message in schema_errors(bundle.metadata):
        yield Fault("schema", place, message)
    version = bundle.metadata.get("version")
    try:
        Version(version)
    except DataError as error:
        yield Fault("version", place, str(error))
    changelog = bundle.metadata.get("changelog", {})
    if not isinstance(changelog, dict) or version not in changelog:
        yield Fault("changelog", place, f"the changelog does not hold version {version}")


def schema_errors(metadata: Mapping[str, Any]) -> list[str]:
    """What does not fit the schema, a line each; empty where all does."""
    lines = []
    for error in _validator().iter_errors(metadata):
        best = best_match([error]) or error
        where = "#".join(str(part) for part in best.absolute_path)
        message = f"{where}: {best.message}" if where else best.message
        lines.append(message if len(message) <= _LONGEST else message[:_LONGEST] + " ...")
    return lines


@cache
def _validator() -> Draft201909Validator:
    schema = Path(__file__).with_name("metadata_schema.json")
    return Draft201909Validator(json.loads(schema.read_text(encoding="utf-8")))


def check_metrics(bundle: Bundle) -> Iterator[Fault]:
    """The figures of the metadata against the evaluation that is shipped with the weights."""
    figures = bundle.metadata.get("eval_metrics")
    if not figures:
        yield Fault("metrics-missing", "configs/metadata.json", "no eval_metrics")
    if not (bundle.root / EVALUATION).is_file():
        yield Fault("metrics-missing", EVALUATION, "missing: the evaluation of the shipped weights (tools.release.evaluation writes it)")
    elif isinstance(figures, dict):
        try:
            for message in differences(bundle.root, bundle.metadata):
                yield Fault("metrics", EVALUATION, message)
        except DataError as error:
            yield Fault("metrics", EVALUATION, str(error))


def check_packing(bundle: Bundle) -> Iterator[Fault]:
    """Whether ``pack`` can make an archive of a bundle of the repository, and its pages are of use there (:func:`check_pages`)."""
    if bundle.is_packed:
        yield from check_pages(bundle.name, {path.name: path.read_bytes() for path in sorted((bundle.root / "docs").glob("*.md"))})
        return
    try:
        files = packed_files(bundle, Path(tools.__file__).parent)
        yield from check_pages(bundle.name, {Path(name).name: content for name, content in files.items() if name.endswith(".md")})
    except (DataError, KeyError, TypeError) as error:
        yield Fault("packing", bundle.name, str(error) if isinstance(error, DataError) else f"the metadata lack {error}")


def check_pages(name: str, pages: Mapping[str, bytes]) -> Iterator[Fault]:
    """Lines of an archive's pages (file name to content) that name the bundle's folder in the repository, but for ``python -m tools``."""
    for page, content in pages.items():
        for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
            if f"bundles/{name}" in line and "python -m tools" not in line:
                yield Fault(
                    "page", f"docs/{page}:{number}", f"names bundles/{name} in an archive; commands of more than a line belong in a fence"
                )


def _check_logging(path: Path) -> Iterator[Fault]:
    parser, place = RawConfigParser(), "configs/logging.conf"
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (ConfigError, UnicodeDecodeError) as error:
        yield Fault("logging", place, f"not readable: {error}")
        return
    for section in parser.sections():
        kind = parser.get(section, "class", fallback=None)
        if kind is not None and not hasattr(logging, kind) and not hasattr(logging.handlers, kind.removeprefix("handlers.")):
            yield Fault("logging", f"{place} [{section}]", f"class {kind} is none of Python's own")
        arguments = parser.get(section, "args", fallback="()")
        for stream in _STREAMS:
            arguments = arguments.replace(stream, "None")
        try:
            ast.literal_eval(arguments)
        except (ValueError, SyntaxError):
            yield Fault("logging", f"{place} [{section}]", "args may hold literals, sys.stdout and sys.stderr")
