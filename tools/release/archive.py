"""Archives from anywhere: looked at before anything of them is written, and unpacked without leaving their folder."""

from __future__ import annotations

import json
import lzma
import os
import re
import stat
import unicodedata
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from tools.data.checks import DataError, first_line
from tools.release.bundle import check_name
from tools.release.versions import Version

__all__ = ["LARGEST", "Contents", "read_archive", "unpack"]

LARGEST = 2**30  # bytes, unpacked; a bundle is some ten megabytes, and more is made to fill disks
_DAMAGED = (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError)
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)  # devices, on Windows, in any folder


@dataclass(frozen=True)
class Contents:
    """What an archive says of itself.

    Attributes:
        name: name of the bundle, that of the top folder.
        version: version in its metadata.
        files: paths in it, top folder included, that are files.
    """

    name: str
    version: Version
    files: tuple[str, ...]


def read_archive(path: str | os.PathLike) -> Contents:
    """Look at a bundle's archive, and read all of it once.

    Raises:
        DataError: the archive is truncated or damaged; a path in it is absolute, has ``..``, a drive letter or a backslash, is a link or
            another special file, or stands in it twice (upper and lower case and forms of Unicode count as the same); it is encrypted, or
            larger than :data:`LARGEST`; it has more than one top folder, or no metadata with a version.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: missing")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            files = _checked_names(path, entries)
            damaged = archive.testzip()
            if damaged is not None:
                raise DataError(f"{path}: damaged: the checksum of {damaged} is wrong")
            tops = {name.split("/")[0] for name in files}
            if len(tops) != 1 or any("/" not in name for name in files):
                raise DataError(f"{path}: a bundle's archive has one folder at the top, this has {', '.join(sorted(tops)) or 'nothing'}")
            name = check_name(tops.pop())
            if f"{name}/configs/metadata.json" not in files:
                raise DataError(f"{path}: no {name}/configs/metadata.json")
            metadata = json.loads(archive.read(f"{name}/configs/metadata.json"))
            version = Version(metadata.get("version", ""))
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error
    except (*_DAMAGED, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: truncated, or no zip archive ({first_line(error)})") from error
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: its metadata.json is not readable") from error
    return Contents(name, version, files)


def unpack(path: str | os.PathLike, to: Path) -> None:
    """Write the files of an archive that :func:`read_archive` found sound below ``to``, an empty folder, without its top folder.

    Raises:
        DataError: the archive has changed since, or the folder cannot be written.
    """
    path, to = Path(path), to.resolve()
    try:
        with zipfile.ZipFile(path) as archive:
            _checked_names(path, archive.infolist())
            for entry in archive.infolist():
                if entry.is_dir():
                    continue
                destination = to.joinpath(*entry.filename.split("/")[1:])
                if not destination.resolve().is_relative_to(to):
                    raise DataError(f"{path}: {entry.filename!r} leads out of the folder")
                destination.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, open(destination, "xb") as sink:
                    while block := source.read(2**20):
                        sink.write(block)
    except _DAMAGED as error:
        raise DataError(f"{path}: could not be unpacked ({first_line(error)})") from error


def _checked_names(path: Path, entries: list[zipfile.ZipInfo]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    folders: set[str] = set()
    for entry in entries:
        name = entry.orig_filename  # zipfile cuts its own copy at a NUL
        _check_name(path, name, entry)
        key = _same(name.rstrip("/"))
        if key in seen:
            raise DataError(f"{path}: {name!r} stands in it twice")
        seen[key] = name
        parts = key.split("/")
        folders |= {"/".join(parts[:k]) for k in range(1, len(parts))}
    files = tuple(name for name in seen.values() if not name.endswith("/"))
    for name in files:
        if _same(name) in folders:
            raise DataError(f"{path}: {name!r} is a file and a folder")
    if sum(entry.file_size for entry in entries) > LARGEST:
        raise DataError(f"{path}: more than {LARGEST / 2**30:g} GiB unpacked")
    return files


def _check_name(path: Path, name: str, entry: zipfile.ZipInfo) -> None:
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise DataError(f"{path}: the path {name!r} leads out of the folder or is not plain")
    if any(ord(letter) < 32 for letter in name) or any(part[-1] in ". " or _RESERVED.fullmatch(part) for part in parts):
        raise DataError(f"{path}: the path {name!r} cannot be written everywhere")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or (kind == stat.S_IFDIR) != name.endswith("/") and kind:
        raise DataError(f"{path}: {name!r} is a link or another special file")
    if entry.flag_bits & 1:
        raise DataError(f"{path}: {name!r} is encrypted")


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
