"""The virtual environment that MONAI Label runs in: made once, outside of the repository, and shared by everything that asks for it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tools
from tools.data.checks import DataError

__all__ = ["REQUIREMENTS", "VARIABLE", "environment_folder", "label_environment"]

REQUIREMENTS = Path(tools.__file__).resolve().parents[1] / "requirements-label.txt"
#: environment variable that names a folder to be used instead
VARIABLE = "ANATOMY_BUNDLES_LABEL_ENV"


def environment_folder(requirements: str | os.PathLike = REQUIREMENTS) -> Path:
    """Where the environment of these requirements lies, made or not.

    That is the folder named by :data:`VARIABLE`, or one for each list of requirements and version of Python in ``$XDG_CACHE_HOME``
    (by default ``~/.cache``).
    """
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE]).resolve()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(f"{sys.version}\n{Path(requirements).read_text(encoding='utf-8')}".encode()).hexdigest()[:12]
    return cache / "anatomy-bundles" / f"monailabel-{key}"


def label_environment(requirements: str | os.PathLike = REQUIREMENTS) -> Path:
    """The environment's folder; made where it is missing or was left half made, which takes minutes and 2.7 GB with a CPU's PyTorch.

    ``TORCH_INDEX`` names an extra index for PyTorch, as for the Makefile.

    Args:
        requirements: exact versions of everything, as in ``requirements-label.txt``.

    Raises:
        DataError: pip could not install it, and what it says of that; or the folder is in the way.
    """
    requirements, folder = Path(requirements), environment_folder(requirements)
    if (folder / "bin" / "python").is_file():
        return folder
    if folder.is_dir() and not folder.is_symlink():
        raise DataError(f"{folder}: a folder without an environment; move it away")
    print(f"Installing MONAI Label into {folder}: some minutes, once", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # An environment knows its own path and cannot be moved: it is made under a name of its own, and linked when it is complete.
    made = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        _run([sys.executable, "-m", "venv", made])
        pip = [made / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        index = ["--extra-index-url", os.environ["TORCH_INDEX"]] if os.environ.get("TORCH_INDEX") else []
        # What PyTorch needs depends on its build; the list says in which versions, where it names them.
        _run([*pip, *index, "--constraint", requirements, _torch(requirements)])
        _run([*pip, "--no-deps", "--requirement", requirements])
        link = made.with_name(f"{made.name}.link")
        link.symlink_to(made.name)
        os.replace(link, folder)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return folder


def _torch(requirements: Path) -> str:
    return next(line.strip() for line in requirements.read_text(encoding="utf-8").splitlines() if line.startswith("torch=="))


def _run(command: Sequence[str | os.PathLike]) -> None:
    try:
        subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")] or error.stderr.splitlines() or ["failed"]
        raise DataError(f"MONAI Label's environment could not be made: {lines[-1]}") from error
