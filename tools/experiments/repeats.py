"""Repetitions of a run over folds, seeds or domains: their names and what is different in each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

__all__ = ["holds", "repetitions"]


def repetitions(name: str, repeat: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """The runs that a run stands for: name to the overrides that make it.

    Args:
        name: of the run.
        repeat: override key to its values. The first key's values vary slowest. Without any the run stands for itself.

    Returns:
        ``{"full_seed0_fold3": {"seed": 0, "fold": 3}, ...}``; a text goes into the name without its key.

    Raises:
        ValueError: a key has no list of values, one twice, or one that cannot be part of a folder's name.
    """
    for key, values in repeat.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"repeat must map {key!r} to a list of values")
        for value in values:
            if not isinstance(value, (str, int, float)) or not re.fullmatch(r"[\w.-]+", str(value)):
                raise ValueError(f"repeat has {value!r} for {key!r}; use numbers, or texts of letters, digits, - and _")
        if len(set(map(str, values))) < len(values):
            raise ValueError(f"repeat has a value of {key!r} twice")
    result = {}
    for values in product(*repeat.values()):
        parts = [value if isinstance(value, str) else f"{key}{value}" for key, value in zip(repeat, values, strict=True)]
        result["_".join([name, *parts])] = dict(zip(repeat, values, strict=True))
    return result


def holds(what: str, condition: bool | Mapping[str, Sequence[Any]], repetition: Mapping[str, Any]) -> bool:
    """Whether a condition holds for a repetition: for all, for none, or for those with one of the values that it lists by key.

    Args:
        what: the condition is, for the message.
        condition: true, false, or ``{key: [values]}``.
        repetition: override key to value.

    Raises:
        ValueError: it has a key that is not repeated over, or no list of values.
    """
    if isinstance(condition, bool):
        return condition
    for key, values in condition.items():
        if key not in repetition or not isinstance(values, list):
            raise ValueError(f"{what} must map keys of repeat to lists of their values, not {key!r} to {values!r}")
    return any(repetition[key] in values for key, values in condition.items())
