"""Virtual environments for tests: made once, and kept outside of the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

__all__ = ["environment"]


def environment(name: str, requirements: Sequence[str], base: Path | None = None) -> Path:
    """Folder of a virtual environment into which pip has put these packages, what they need, and nothing else.

    It lies in ``$XDG_CACHE_HOME/anatomy-bundles/environments`` (by default in ``~/.cache``), one folder a list of packages, and is made
    anew where it is missing or was left half made. Its Python is ``bin/python``.

    Args:
        name: beginning of the folder's name.
        requirements: as pip reads them. ``TORCH_INDEX`` in the environment names an extra index for PyTorch, as for the Makefile.
        base: another such folder, whose packages count as installed: large ones are then kept once.

    Raises:
        RuntimeError: pip could not install them; the message is pip's.
    """
    key = hashlib.sha256("\n".join((sys.version, base.name if base else "", *sorted(requirements))).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "anatomy-bundles" / "environments" / f"{name}-{key}"
    stamp = folder / "complete"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True, symlinks=True)
        if base is not None:
            (_site_packages(folder) / "base.pth").write_text(f"{_site_packages(base)}\n")
        index = os.environ.get("TORCH_INDEX")
        # --no-compile: only what is imported is worth compiling
        options = ["--quiet", "--no-compile", *(["--extra-index-url", index] if index else [])]
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", *options, *requirements]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if result.returncode:
            raise RuntimeError(result.stdout + result.stderr)
        stamp.touch()
    return folder


def _site_packages(folder: Path) -> Path:
    (found,) = folder.glob("lib/python*/site-packages")
    return found
