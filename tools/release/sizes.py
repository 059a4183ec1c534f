"""Spatial shapes as metadata write them: numbers, ``*`` for any, or expressions of ``n`` and ``p`` such as ``16*n`` and ``2**p``."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from tools.data.checks import DataError

__all__ = ["spatial_size", "trial_values"]

_LARGEST = 4096  # voxels along an axis
_HIGHEST_POWER = 16
_OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Pow: lambda a, b: a**b,
}


def spatial_size(shape: Sequence[int | str], values: Sequence[Mapping[str, int]]) -> tuple[int, ...]:
    """The shape in numbers.

    Args:
        shape: of the metadata, an entry an axis.
        values: for each axis the values of ``n``, ``p`` and ``*``.

    Raises:
        DataError: an entry is none of the forms above.
    """
    return tuple(_number(entry, values[axis]) for axis, entry in enumerate(shape))


def trial_values(shape: Sequence[int | str], rounds: int = 3) -> list[list[dict[str, int]]]:
    """Values to try a network with, for each round and axis; other ones for each axis, so that swapped axes are seen."""
    return [
        [{"n": 2 + (axis + step) % 3, "p": 5 + (axis + step) % 2, "*": 3 + axis + 2 * step} for axis in range(len(shape))]
        for step in range(rounds)
    ]


def _number(entry: int | str, values: Mapping[str, int]) -> int:
    if isinstance(entry, int):
        return entry
    if entry.strip() == "*":
        return values["*"]
    try:
        result = _evaluate(ast.parse(entry.strip(), mode="eval").body, values)
    except (SyntaxError, KeyError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise DataError(f"spatial_shape: {entry!r} is no number, '*', or expression of n and p") from error
    if not 0 < result < _LARGEST:
        raise DataError(f"spatial_shape: {entry!r} gives {result}")
    return result


def _evaluate(node: ast.AST, values: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value < _LARGEST:
        return node.value
    if isinstance(node, ast.Name):
        return values[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left, values), _evaluate(node.right, values)
        if isinstance(node.op, ast.Pow) and not (0 <= right <= _HIGHEST_POWER and abs(left) < _LARGEST):
            raise OverflowError(f"{left}**{right}")  # 9**9**9 would never end
        return _OPERATORS[type(node.op)](left, right)
    raise TypeError(ast.dump(node))
