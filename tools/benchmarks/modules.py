"""The modules of a bundle's own package, which lies in the bundle's folder and is on no path until then."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["bundle_modules"]


def bundle_modules(bundle_root: str | os.PathLike, *names: str) -> list[ModuleType]:
    """Modules by name, of the package that has the name of the bundle's folder."""
    if str(bundle_root) not in sys.path:
        sys.path.insert(0, str(bundle_root))
    return [importlib.import_module(f"{Path(bundle_root).name}.{name}") for name in names]
