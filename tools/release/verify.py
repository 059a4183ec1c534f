"""Everything that must be true of a bundle before it is released."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tools.data.checks import DataError
from tools.release.archive import read_archive, unpack
from tools.release.bundle import Bundle
from tools.release.check_configs import check_expressions, check_properties, check_requirements, check_targets
from tools.release.check_files import check_files, check_metadata, check_metrics, check_packing
from tools.release.check_network import check_network
from tools.release.faults import Fault
from tools.release.isolation import isolated

__all__ = ["verify"]

_UNUSABLE = ("json", "schema", "version")  # of the metadata: what builds on them would fail for the same reason


def verify(path: str | os.PathLike) -> list[Fault]:
    """Check a bundle's folder, or an archive, and run its code.

    Args:
        path: folder of a bundle of the repository, of an unpacked archive, or an archive. Its code is run: verify only what you trust.

    Returns:
        the faults, none where all is well.

    Raises:
        DataError: there is nothing at the path.
    """
    path = Path(path)
    if path.is_dir():
        return list(_faults(path.resolve()))
    if not path.is_file():
        raise DataError(f"{path}: no folder and no archive")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = Path(scratch) / read_archive(path).name
            folder.mkdir()
            unpack(path, folder)
        except DataError as error:
            return [Fault("archive", path.name, str(error))]
        return list(_faults(folder.resolve()))


def _faults(root: Path) -> Iterator[Fault]:
    found = list(check_files(root))
    yield from found
    try:
        bundle = Bundle.read(root)
    except DataError:
        return  # told above: the metadata are missing or no JSON
    about_metadata = list(check_metadata(bundle))
    yield from about_metadata
    yield from check_expressions(bundle)
    if any(fault.code in _UNUSABLE for fault in about_metadata):
        return
    yield from check_properties(bundle)
    yield from check_metrics(bundle)
    if not any(fault.code in ("name", "json") for fault in found):
        yield from check_packing(bundle)
    with isolated(bundle):
        yield from check_targets(bundle)
        yield from check_requirements(bundle)
        yield from check_network(bundle)
