"""Version numbers of bundles, ordered as Semantic Versioning 2.0.0 says (https://semver.org), where text would put 0.5.9 after 0.5.10."""

from __future__ import annotations

import functools
import re

from tools.data.checks import DataError

__all__ = ["Version"]

_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_PATTERN = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_IDENTIFIERS}))?(?:\+({_IDENTIFIERS}))?")


@functools.total_ordering
class Version:
    """A version such as ``0.1.0`` or ``1.0.0-rc.1``.

    Args:
        text: the version as written.

    Raises:
        DataError: not a semantic version.
    """

    def __init__(self, text: str) -> None:
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        identifiers = match[4].split(".") if match and match[4] else []
        if match is None or any(part.isdigit() and part != str(int(part)) for part in identifiers):
            raise DataError(f"version {text!r}: a version is three numbers such as 0.1.0, or 1.0.0-rc.1 (semver.org)")
        self.text = text
        # A pre-release comes before its release; numbers come before words.
        before = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in identifiers)
        self._key = (int(match[1]), int(match[2]), int(match[3]), not before, before)

    @property
    def identifier(self) -> str:
        """The version as part of a Python name: ``0_1_0``."""
        return re.sub(r"[^0-9A-Za-z]", "_", self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Version({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)
