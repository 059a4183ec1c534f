"""Checksums of files."""

from __future__ import annotations

import hashlib
import os

__all__ = ["sha1_of", "sha256_of"]


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return _digest(path, "sha256")


def sha1_of(path: str | os.PathLike) -> str:
    """SHA-1 of a file, in hexadecimal: what the Model Zoo's list holds. It tells damage, not malice."""
    return _digest(path, "sha1")


def _digest(path: str | os.PathLike, algorithm: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()
