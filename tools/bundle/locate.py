"""Where a bundle lies, asked from inside its config."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.utils import ensure_tuple

__all__ = ["bundle_root", "frames", "workflow"]


def frames() -> Iterator[FrameType]:
    """The frames of the call stack from the caller outwards."""
    frame = inspect.currentframe()
    frame = frame.f_back if frame is not None else None
    while frame is not None:
        yield frame
        frame = frame.f_back


def workflow() -> ConfigWorkflow | None:
    """The innermost ConfigWorkflow that is initialising or running on the call stack, or None."""
    for frame in frames():
        found = frame.f_locals.get("self")
        if isinstance(found, ConfigWorkflow):
            return found
    return None


def bundle_root() -> str:
    """The absolute path of the bundle whose config is being evaluated: the folder that holds ``configs/``.

    For the config's ``bundle_root``: ``"."`` depends on the current folder, and ``load``, ``create_workflow`` and federated clients
    pass no other. Without a ConfigWorkflow on the call stack the config file named to one of MONAI's commands counts
    (``verify_net_in_out``).

    Raises:
        RuntimeError: no config is found on the call stack; then ``bundle_root`` must be given.
    """
    found = workflow()
    if found is not None:
        return str(_above_configs(Path(found.config_root_path)))
    for frame in frames():
        if frame.f_globals.get("__name__") == "monai.bundle.scripts":
            file = _first(frame.f_locals.get("config_file_")) or _first(frame.f_locals.get("config_file"))
            if file is not None:
                return str(_above_configs(Path(file).parent))
    raise RuntimeError("no bundle config on the call stack: give bundle_root, the folder that holds configs/")


def _first(files: Any) -> str | None:
    files = ensure_tuple(files)
    return files[0] if files and isinstance(files[0], (str, Path)) else None


def _above_configs(folder: Path) -> Path:
    folder = folder.resolve()
    # An overlay given alone lies deeper: configs/experiments/.
    for candidate in (folder, *folder.parents):
        if candidate.name == "configs":
            return candidate.parent
    return folder.parent
