"""Install a bundle from a registry: checked, shown to its user, and in place as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tools
from tools.data.checks import DataError, read_json
from tools.data.files import write_json
from tools.release.archive import Contents, read_archive, unpack
from tools.release.bundle import Bundle, check_name
from tools.release.fetch import address, fetch, join
from tools.release.hashes import sha256_of
from tools.release.pack import pack
from tools.release.registry import INDEX, read_index
from tools.release.trust import executed
from tools.release.versions import Version

__all__ = ["install", "is_of_this_collection"]

COLLECTION = Path(tools.__file__).resolve().parents[1] / "bundles"
_LIST_LIMIT = 16 * 2**20
_SCRATCH, _DAY = ".installing-", 86400  # seconds


def install(
    name: str,
    source: str,
    to: str | os.PathLike,
    version: str | None = None,
    force: bool = False,
    agree: Callable[[list[str]], bool] = lambda lines: False,
) -> Path:
    """Install a bundle as ``to/NAME``; an older version there is replaced.

    Beside it, ``to/.NAME.json`` notes what was installed, so that results and changes of the user's in the folder are never lost.

    Args:
        name: name of the bundle.
        source: registry: a folder with ``index.json``, or its http, https or file address.
        to: folder for bundles.
        version: by default the newest that is no pre-release, or the newest of all where there is none.
        force: install also an older version over a newer one, another archive of the same version, and over a folder with files of the
            user's.
        agree: asked before a bundle that is not from this collection is installed, with what its configs execute
            (:func:`tools.release.trust.executed`); refuses by default.

    Returns:
        the bundle's folder.

    Raises:
        DataError: something is not as it must be; nothing has changed on disk then.
    """
    check_name(name)
    to = Path(to).resolve()
    base = address(source)
    with _folder(to):
        _recover(to, name)
        return _install(name, base, to, version, force, agree)


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """A folder that is made where it is missing, and goes again when the block raises."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty: others write there too
            for folder in missing:
                folder.rmdir()
        raise


def _install(name: str, base: str, to: Path, version: str | None, force: bool, agree: Callable[[list[str]], bool]) -> Path:
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=to) as scratch:
        listed = Path(scratch) / INDEX
        fetch(join(base, INDEX), listed, _LIST_LIMIT)
        entry = _choose(read_index(listed, join(base, INDEX)), name, version, base)
        archive = Path(scratch) / "archive.zip"
        fetch(join(base, entry["url"]), archive, entry["size"], entry["sha256"], entry["size"])
        contents = read_archive(archive)
        if contents.name != name or str(contents.version) != entry["version"]:
            raise DataError(f"{entry['url']}: holds {contents.name} {contents.version}, the registry says {name} {entry['version']}")
        if _compare(to, contents, entry["sha256"], force):
            return to / name
        unpacked = Path(scratch) / name
        unpacked.mkdir()
        unpack(archive, unpacked)
        if not is_of_this_collection(contents, entry["sha256"]) and not agree(executed(unpacked)):
            raise DataError(f"{name} {contents.version}: not from this collection and not trusted; nothing was installed")
        record = {"version": entry["version"], "sha256": entry["sha256"], "files": _hashes(unpacked)}
        _replace(to, name, unpacked, record)
    return to / name


def is_of_this_collection(contents: Contents, sha256: str, bundles: Path | None = None) -> bool:
    """Whether an archive is, byte for byte, what this copy of the repository packs.

    A name or a version proves nothing; archives being deterministic, the bytes do.

    Args:
        contents: what the archive holds.
        sha256: of the archive.
        bundles: folder of the bundles; by default the one beside this package, if it is there.
    """
    folder = (COLLECTION if bundles is None else bundles) / contents.name
    if not (folder / "configs" / "metadata.json").is_file():
        return False
    try:
        if Bundle.read(folder).version != contents.version:
            return False
        with tempfile.TemporaryDirectory() as scratch:
            return sha256_of(pack(folder, scratch)) == sha256
    except DataError:
        return False


def _choose(index: dict[str, dict[Version, dict[str, Any]]], name: str, version: str | None, base: str) -> dict[str, Any]:
    if name not in index:
        raise DataError(f"{base}: no bundle {name!r}; it has {', '.join(index) or 'none'}")
    versions = index[name]
    if version is not None:
        wanted = Version(version)
        if wanted not in versions:
            raise DataError(f"{base}: no version {version} of {name}; it has {', '.join(map(str, versions))}")
        return versions[wanted]
    if not versions:
        raise DataError(f"{base}: no version of {name}")
    released = [known for known in versions if "-" not in known.text.split("+")[0]]
    return versions[(released or list(versions))[-1]]


def _compare(to: Path, contents: Contents, sha256: str, force: bool) -> bool:
    """Whether the very archive is installed already, unchanged. Raises DataError where it must not replace what is there."""
    folder, record_path = to / contents.name, _record(to, contents.name)
    if not os.path.lexists(folder):
        return False
    if folder.is_symlink() or not folder.is_dir():
        raise DataError(f"{folder}: not a folder; move it away first")
    record = read_json(record_path) if record_path.is_file() else {}
    changed = _changes(folder, record.get("files", {}))
    if not changed and record.get("sha256") == sha256:
        return True
    if force:
        return False
    installed = Bundle.read(folder).version
    if installed > contents.version:
        raise DataError(f"{folder}: version {installed} is installed, which is newer than {contents.version}; --force true takes the older")
    if not record:
        raise DataError(f"{folder}: was not installed by this command; move it away, or --force true replaces it")
    if changed:
        raise DataError(f"{folder / changed[0]}: is not as it was installed; move it away, or --force true gives it up")
    if installed == contents.version:
        raise DataError(f"{folder}: version {installed} is installed from another archive; --force true replaces it")
    return False


def _changes(folder: Path, installed: dict[str, str]) -> list[str]:
    """Files that are new, other, or gone, caches of Python aside."""
    present = _hashes(folder)
    return sorted(name for name in present.keys() | installed.keys() if present.get(name) != installed.get(name))


def _hashes(folder: Path) -> dict[str, str]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in paths}


def _replace(to: Path, name: str, unpacked: Path, record: dict[str, Any]) -> None:
    """Put a new folder in the place of the old one. Killed in between, the next :func:`_recover` ends it or brings the old one back."""
    folder, old = to / name, _aside(to, name)
    write_json(_coming(to, name), record)
    if folder.exists():
        os.replace(folder, old)
    try:
        os.replace(unpacked, folder)
    except OSError as error:
        _recover(to, name)
        raise DataError(f"{folder}: could not be put in place ({error})") from error
    os.replace(_coming(to, name), _record(to, name))
    shutil.rmtree(old, ignore_errors=True)


def _recover(to: Path, name: str) -> None:
    """End what a killed installation had put in place, or undo what it had begun, and clear away what it was unpacking."""
    folder, old, coming = to / name, _aside(to, name), _coming(to, name)
    if coming.is_file() and folder.is_dir() and _hashes(folder) == read_json(coming).get("files"):
        os.replace(coming, _record(to, name))
    elif old.is_dir() and not os.path.lexists(folder):
        os.replace(old, folder)
    coming.unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    for scratch in to.glob(f"{_SCRATCH}*"):
        if time.time() - scratch.stat().st_mtime > _DAY:  # a younger one may be at work
            shutil.rmtree(scratch, ignore_errors=True)


def _aside(to: Path, name: str) -> Path:
    return to / f".{name}.replaced"


def _record(to: Path, name: str) -> Path:
    return to / f".{name}.json"


def _coming(to: Path, name: str) -> Path:
    """Record of what is being put in place."""
    return to / f".{name}.json.new"
