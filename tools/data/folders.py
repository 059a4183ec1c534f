"""Make a folder of files so that it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools.data.checks import DataError

try:
    import fcntl
except ImportError:  # no such locks on Windows
    fcntl = None

__all__ = ["claim", "fill_new_folder"]

_claims: dict[Path, int] = {}


def claim(folder: str | os.PathLike) -> None:
    """Keep other processes that ask for it out of a folder, which is made, for as long as this process lives.

    File systems without locks let everybody in.

    Raises:
        DataError: another process has it.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None or folder in _claims:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DataError(f"{folder}: another run is writing there; choose another --output_dir") from None
    except OSError:
        os.close(handle)
        return
    _claims[folder] = handle


def fill_new_folder(to: str | os.PathLike, fill: Callable[[Path], None]) -> Path:
    """Call ``fill`` on a new folder beside ``to`` and move that into place: ``to`` appears whole or not at all.

    Args:
        to: must not exist, or be an empty folder.
        fill: writes into the folder it is given.

    Raises:
        DataError: when ``to`` is a file or a folder that is not empty. What ``fill`` raises goes through, and nothing is left.
    """
    to = Path(to).absolute()
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise DataError(f"{to}: exists and is not an empty folder; choose another one or remove it first")
    to.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".writing-{to.name}-", dir=to.parent))
    try:
        fill(temporary)
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, to)  # takes the place of an empty folder too
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return to
