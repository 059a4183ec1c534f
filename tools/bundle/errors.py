"""Bad input ends a command with one line, not with the traceback of a config parser."""

from __future__ import annotations

import sys
from types import TracebackType

from tools.data.checks import DataError

__all__ = ["cause", "one_line_errors"]


def cause(error: BaseException | None) -> DataError | None:
    """The :class:`~tools.data.checks.DataError` that ``error`` is or stems from, or None.

    MONAI wraps whatever happens inside a config expression into ``RuntimeError("Failed to evaluate ...")``.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, DataError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def one_line_errors() -> None:
    """From now on, an uncaught error that stems from bad input prints ``error: <line>`` and the process ends with status 1.

    All other errors keep their traceback. Calling it again changes nothing.
    """
    if sys.excepthook is not _hook:
        _hook.previous = sys.excepthook  # type: ignore[attr-defined]
        sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    found = cause(error)
    if found is None:
        _hook.previous(kind, error, traceback)  # type: ignore[attr-defined]
    else:
        print(f"error: {found}", file=sys.stderr)
