"""Paths on the command line of ``monai.bundle``, which fire reads as Python, and the folder that results go to."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.data.checks import DataError

__all__ = ["check_folder", "check_paths"]

_PATH = re.compile(r"(?:.*_)?(?:dir|file|weights)")


def check_paths(options: Mapping[str, Any], words: Sequence[str] | None = None) -> None:
    """Refuse paths that are not what was typed: ``2024`` is a number to fire, and in ``Study #3`` a comment begins at ``#``.

    Args:
        options: names and values as they were read; those that end in ``dir``, ``file`` or ``weights`` are paths.
        words: the command line, by default that of the process.

    Raises:
        DataError: a path is another one than was typed, or none.
    """
    paths = {key: value for key, value in options.items() if _PATH.fullmatch(key) and value is not None}
    for key, value in paths.items():
        if not isinstance(value, (str, os.PathLike)):
            raise DataError(f"--{key}: read as the {type(value).__name__} {value!r}, not as a path; write ./{value}")
    for key, text in _typed(sys.argv[1:] if words is None else words):
        if "#" in text and key in paths and "#" not in str(paths[key]):
            quoted = f"\"'{text}'\""
            raise DataError(f"--{key} {text!r} was read as {str(paths[key])!r}, since # begins a comment; write {quoted}")


def _typed(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            yield key, value if equals else following


def check_folder(path: str | os.PathLike) -> None:
    """Refuse a folder for results that is there and cannot be written to, or that cannot be made.

    Raises:
        DataError: what is in the way.
    """
    path = Path(path).absolute()
    nearest = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not nearest.is_dir():
        raise DataError(f"{nearest}: not a folder; choose another --output_dir")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DataError(f"{nearest}: cannot be written to; choose another --output_dir")
