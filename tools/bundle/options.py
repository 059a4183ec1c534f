"""Values on the command line of ``monai.bundle`` that cannot be, seen before anything is built."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from tools.data.checks import DataError, first_line

__all__ = ["check_device", "check_folder", "check_number", "check_paths", "check_range", "check_seed"]

_PATH = re.compile(r"(?:.*_)?(?:dir|file)|weights")


def check_paths(options: Mapping[str, Any], words: Sequence[str] | None = None) -> None:
    """Refuse paths that are not what was typed: ``2024`` is a number to fire, and in ``Study #3`` a comment begins at ``#``.

    Args:
        options: names and values as they were read; those that end in ``dir`` or ``file``, and ``weights``, are paths.
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
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            yield key, value if equals else following


def check_device(device: str | torch.device) -> None:
    """Refuse a device that this machine has not.

    Raises:
        DataError: it is none, or is not there.
    """
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError, TypeError) as error:
        raise DataError(f"--device {device}: cannot be used here ({first_line(error)})") from error


def check_number(name: str, value: Any, least: int = 1) -> None:
    """Refuse a number of epochs, steps or images, or a seed, that is not a whole number from ``least`` on.

    Raises:
        DataError: so it is; the message names the option.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DataError(f"--{name} must be a whole number from {least} on, not {value!r}")


def check_range(name: str, value: Any, least: float = 0.0, most: float = math.inf) -> None:
    """Refuse a weight, share or angle that is no number from ``least`` to ``most``.

    Raises:
        DataError: so it is; the message names the option.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most or math.isinf(value):
        upward = "on" if math.isinf(most) else f"to {most:g}"
        raise DataError(f"--{name} must be a number from {least:g} {upward}, not {value!r}")


def check_seed(value: Any) -> None:
    """Refuse a seed that is no whole number from 0 on; None, where a training's seed is not known, is none. Raises DataError."""
    if value is not None:
        check_number("seed", value, least=0)


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
