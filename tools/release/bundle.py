"""A bundle's folder: its name, its metadata, its package, and the files that a release holds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json
from tools.release.versions import Version

__all__ = ["SHARED", "Bundle", "check_name", "files_below", "shipped_files"]

SHARED = "tools"  # the package that all bundles of this repository share
FOLDERS = ("configs", "docs", "models")
PASSED_OVER = ("output",)  # where the configs write by default
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_name(name: str) -> str:
    """The name of a bundle, when it can be one.

    Raises:
        DataError: it is no lower-case identifier, or holds ``_v``, at which MONAI cuts the version off.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DataError(f"bundle name {name!r}: lower-case letters, digits and underscores only")
    if "_v" in name:
        raise DataError(f"bundle name {name!r}: '_v' separates name and version in archives and must not be in a name")
    return name


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, in the repository or unpacked.

    Attributes:
        root: folder that holds ``configs/``; its name is the bundle's.
        metadata: content of ``configs/metadata.json``.
    """

    root: Path
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, root: str | os.PathLike) -> Bundle:
        """Read a bundle's metadata.

        Raises:
            DataError: the folder or its metadata is missing or unreadable.
        """
        root = Path(root).resolve()
        if not root.is_dir():
            raise DataError(f"{root}: no such folder")
        path = root / "configs" / "metadata.json"
        metadata = read_json(path)
        if not isinstance(metadata, dict):
            raise DataError(f"{path}: not a JSON object")
        return cls(root, metadata)

    @property
    def name(self) -> str:
        """Name of the bundle, that of its folder."""
        return self.root.name

    @property
    def version(self) -> Version:
        """Version in the metadata. Raises DataError where it is none."""
        return Version(self.metadata.get("version", ""))

    @property
    def packed_package(self) -> str:
        """What ``pack`` calls the bundle's own package: two versions in one process must not share a name."""
        return f"{self.name}_{self.version.identifier}"

    @property
    def packed_shared(self) -> str:
        """What ``pack`` calls the shared package inside of the archive."""
        return f"{self.name}_{SHARED}_{self.version.identifier}"

    @property
    def packages(self) -> tuple[str, ...]:
        """Python packages in the bundle's folder: its own, or what ``pack`` made of it and of the shared one."""
        return tuple(sorted(path.parent.name for path in self.root.glob("*/__init__.py")))

    @property
    def is_packed(self) -> bool:
        """Whether the folder is an unpacked archive, which brings the shared package along."""
        return self.name not in self.packages and bool(self.packages)

    def configs(self) -> list[Path]:
        """JSON files below ``configs/`` but the metadata, overlays included, sorted."""
        return sorted(path for path in (self.root / "configs").rglob("*.json") if path.name != "metadata.json")

    def own_packages(self) -> set[str]:
        """Top-level names of packages whose code is the bundle's or this repository's."""
        return {self.name, SHARED, *self.packages}


def shipped_files(bundle: Bundle) -> Iterator[Path]:
    """The files of a bundle that a release holds, sorted: licence, ``configs/``, ``docs/``, ``models/`` and the package.

    Hidden files, caches of Python and what training leaves beside weights (checkpoints, logs) stay out.

    Raises:
        DataError: something lies in the folder that is no part of a bundle, or a link does.
    """
    known = {"LICENSE", *FOLDERS, *bundle.packages}
    for entry in sorted(bundle.root.iterdir()):
        if entry.name.startswith(".") or entry.name in (*PASSED_OVER, "__pycache__"):
            continue
        if entry.name not in known:
            raise DataError(f"{entry}: no part of a bundle (LICENSE, {', '.join(FOLDERS)} and the package); move it away")
        if entry.is_symlink():
            raise DataError(f"{entry}: a link; a release holds files only")
        yield from [entry] if entry.is_file() else files_below(entry)


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder that a release holds, sorted; see :func:`shipped_files`."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in ("__pycache__", "checkpoints", "tensorboard") or path.suffix in (".pyc", ".pyo"):
            continue
        if path.is_symlink():
            raise DataError(f"{path}: a link; a release holds files only")
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path
