"""What a bundle's configs build, with the weights of any of its models. Runs the bundle's code: see :mod:`tools.release.isolation`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from tools.bundle.errors import cause
from tools.data.checks import DataError, first_line
from tools.release.bundle import Bundle

__all__ = ["build", "read_configs", "reason"]


def read_configs(bundle: Bundle, names: Sequence[str], model_dir: str | os.PathLike) -> ConfigParser:
    """Files of ``configs/``, laid over each other, that know where the bundle and its model lie.

    Args:
        bundle: the bundle.
        names: of the files.
        model_dir: folder of ``plan.json`` and weights.

    Raises:
        DataError: a file is missing.
    """
    files = [bundle.root / "configs" / name for name in names]
    for file in files:
        if not file.is_file():
            raise DataError(f"{file}: missing")
    parser = ConfigParser()
    parser.read_config([str(file) for file in files])
    parser["bundle_root"], parser["model_dir"] = str(bundle.root), os.fspath(Path(model_dir))
    return parser


def build(parser: ConfigParser, key: str, what: str) -> Any:
    """The object that a key describes.

    Raises:
        DataError: it cannot be built. The line says why as the bundle does; or ``what`` cannot be built, and the error at the bottom.
    """
    try:
        return parser.get_parsed_content(key)
    except Exception as error:  # whatever the bundle's code raises is its fault
        raise cause(error) or DataError(f"{what} cannot be built ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """Why, in one line: the :class:`DataError` an error stems from, or what is at the bottom of its chain."""
    own = cause(error)
    if own is not None:
        return first_line(own)
    while error.__cause__ is not None:
        error = error.__cause__
    kind = type(error).__name__
    # a packed bundle has a DataError of its own
    return first_line(error) if kind == DataError.__name__ else f"{kind}: {first_line(error)}"
