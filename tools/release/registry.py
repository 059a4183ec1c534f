"""A static registry: a folder of archives with two lists of them, to be put on any web server, or used where it lies.

``index.json`` is what :mod:`tools.release.install` reads::

    {"bundles": {"NAME": [{"version": "0.1.0", "sha256": "...", "size": 123, "url": "NAME_v0.1.0.zip"}, ...]}}

Versions are ordered, the newest last; a url is relative to the list unless a base is given. ``model_info.json`` is the Model Zoo's form.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tools.data.checks import DataError, read_json
from tools.data.files import write_json
from tools.release.archive import read_archive
from tools.release.bundle import check_name
from tools.release.hashes import sha1_of, sha256_of
from tools.release.pack import archive_name
from tools.release.versions import Version

__all__ = ["INDEX", "MODEL_INFO", "read_index", "write_registry"]

INDEX, MODEL_INFO = "index.json", "model_info.json"


def write_registry(folder: str | os.PathLike, url: str = "") -> dict[str, Any]:
    """Write ``index.json`` and ``model_info.json`` for the archives of a folder.

    Args:
        folder: with ``NAME_v<version>.zip`` in it.
        url: address that the folder will have, such as ``https://host/bundles``. Without one, urls in ``index.json`` are relative, and
            the sources in ``model_info.json``, which MONAI takes as they are, are the ``file://`` addresses of this folder.

    Returns:
        content of ``index.json``.

    Raises:
        DataError: there is no archive, one is unsound, or its name is not what its metadata say.
    """
    folder = Path(folder).resolve()
    archives = sorted(path for path in folder.glob("*.zip") if not path.name.startswith("."))  # not what a killed pack left
    if not archives:
        raise DataError(f"{folder}: no archives (python -m tools pack writes them)")
    if url and urlsplit(url).scheme not in ("http", "https", "file"):
        raise DataError(f"--url {url}: must begin with https://, http:// or file://")
    bundles: dict[str, list[dict[str, Any]]] = {}
    model_info = {}
    for path in archives:
        contents = read_archive(path)
        version = str(contents.version)
        if path.name != archive_name(contents.name, version):
            raise DataError(f"{path}: holds {contents.name} {version}, so it must be named {archive_name(contents.name, version)}")
        address = f"{url.rstrip('/')}/{path.name}" if url else path.name
        entry = {"version": version, "sha256": sha256_of(path), "size": path.stat().st_size, "url": address}
        bundles.setdefault(contents.name, []).append(entry)
        model_info[path.stem] = {"checksum": sha1_of(path), "source": address if url else path.as_uri()}
    for entries in bundles.values():
        entries.sort(key=lambda entry: Version(entry["version"]))
    index = {"bundles": dict(sorted(bundles.items()))}
    write_json(folder / INDEX, index)
    write_json(folder / MODEL_INFO, dict(sorted(model_info.items())))
    return index


def read_index(path: str | os.PathLike, origin: str) -> dict[str, dict[Version, dict[str, Any]]]:
    """Read an ``index.json``: name to version to its entry, versions in order.

    Args:
        path: the file.
        origin: where it came from, for messages.

    Raises:
        DataError: it is not of the form above.
    """
    content = read_json(path)
    result: dict[str, dict[Version, dict[str, Any]]] = {}
    try:
        for name, entries in content["bundles"].items():
            check_name(name)
            found = {Version(entry["version"]): dict(entry) for entry in entries}
            for version, entry in found.items():
                if not _is_sound(entry):
                    raise DataError(f"{origin}: the entry of {name} {version} needs url, size and sha256")
            if len(found) != len(entries):
                raise DataError(f"{origin}: a version of {name} stands in it twice")
            result[name] = dict(sorted(found.items()))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{origin}: no registry's index.json") from error
    return result


def _is_sound(entry: dict[str, Any]) -> bool:
    digest, size, url = entry.get("sha256"), entry.get("size"), entry.get("url")
    hexadecimal = isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    return hexadecimal and type(size) is int and size > 0 and isinstance(url, str) and bool(url)
