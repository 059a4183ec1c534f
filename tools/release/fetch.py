"""Files of a registry: from a web server, a ``file://`` address, or a folder."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from tools.data.checks import DataError, first_line

__all__ = ["address", "fetch", "join"]

SCHEMES = ("http", "https", "file")
_SECONDS = 60  # without a byte


def address(source: str) -> str:
    """The address of a registry, with a slash at its end.

    Args:
        source: a folder, or its address; the address of its ``index.json`` will do.

    Raises:
        DataError: it is neither a folder nor an address.
    """
    if "://" in source:
        if urlsplit(source).scheme not in SCHEMES:
            raise DataError(f"{source}: only {', '.join(SCHEMES)} addresses and folders can be read")
        result = source.removesuffix("index.json")
    else:
        folder = Path(source).resolve()
        if not folder.is_dir():
            raise DataError(f"{source}: no such folder")
        result = folder.as_uri()
    return result if result.endswith("/") else result + "/"


def join(base: str, url: str) -> str:
    """The address of a file that the list at ``base`` names.

    Raises:
        DataError: what comes from a web server leads elsewhere than to web servers.
    """
    joined = urljoin(base, url)
    scheme = urlsplit(joined).scheme
    if scheme not in SCHEMES or (scheme == "file" and urlsplit(base).scheme != "file"):
        raise DataError(f"{base}: its list names {url}, which is not read from there")
    return joined


def fetch(url: str, to: str | os.PathLike, limit: int, sha256: str | None = None, size: int | None = None) -> None:
    """Copy what an address holds into a file.

    Args:
        url: http, https or file.
        to: the file, not to exist before.
        limit: bytes after which reading stops with an error.
        sha256, size: what it must be, or None.

    Raises:
        DataError: it cannot be read, is longer than ``limit``, or has another size or sha256.
    """
    digest, count = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as source, open(to, "xb") as sink:
            while block := source.read(2**18):
                count += len(block)
                if count > limit:
                    raise DataError(f"{url}: longer than the {limit} bytes it may have")
                digest.update(block)
                sink.write(block)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{url}: not readable ({first_line(error)})") from error
    if size is not None and count != size:
        raise DataError(f"{url}: {count} bytes, the registry says {size}: half an archive, or another one")
    if sha256 is not None and digest.hexdigest() != sha256:
        raise DataError(f"{url}: its sha256 is not the registry's: damaged, or another archive")
