"""The sizes of a network's levels, as they are given."""

from __future__ import annotations

from collections.abc import Sequence

from tools.data.checks import DataError

__all__ = ["check_channels"]


def check_channels(name: str, channels: Sequence[int]) -> None:
    """Refuse channels of levels that are no list of positive whole numbers. Raises DataError, which names the option."""
    if not isinstance(channels, Sequence) or not all(isinstance(size, int) and size > 0 for size in channels):
        raise DataError(f"{name} must be a list of positive whole numbers, one a level, not {channels!r}")
