"""Import the code of one bundle after another in one process, each its own although they may bear the same name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tools.release.bundle import Bundle

__all__ = ["isolated"]


@contextmanager
def isolated(bundle: Bundle) -> Iterator[None]:
    """Within the block the bundle's packages are found in its own folder; afterwards modules and path are what they were."""
    names = {bundle.name, *bundle.packages}

    def taken() -> dict[str, object]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in names}

    before, path = taken(), list(sys.path)
    sys.path.insert(0, str(bundle.root))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        taken()
        sys.modules.update(before)  # type: ignore[arg-type]
        sys.path[:] = path
