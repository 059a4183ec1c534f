"""Config files as text: the strings in them, which of these are Python, and how the names in that Python are found.

A string that begins with ``$`` is Python that MONAI evaluates, in which ``@id`` stands for another entry of the config;
a ``_target_`` names what it calls.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.data.checks import DataError

__all__ = ["expression_code", "expressions", "json_strings", "parse_expression", "targets"]

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_REFERENCE = re.compile(r"@(?=[\w#:])\w*(?:(?:#|::)\w*)*")  # as MONAI's ReferenceResolver finds them, with either separator


def json_strings(text: str) -> Iterator[tuple[int, int, str]]:
    """Begin, end and content of every string of a JSON text that is no key; the quotes lie between begin and end."""
    for match in _STRING.finditer(text):
        if not text[match.end() :].lstrip().startswith(":"):
            yield match.start(), match.end(), json.loads(match[0])


def expressions(node: Any) -> Iterator[str]:
    """The strings of a parsed config that MONAI evaluates, without their ``$``, in order."""
    for value in _values(node):
        if isinstance(value, str) and value.startswith("$"):
            yield value[1:]


def targets(node: Any) -> Iterator[str]:
    """The ``_target_`` strings of a parsed config that are no expressions, in order."""
    for key, target in node.items() if isinstance(node, dict) else ():
        # an overlay may set one from afar: "similarity#_target_"
        if re.fullmatch(r"(?:.*(?:#|::))?_target_", key) and isinstance(target, str) and not target.startswith("$"):
            yield target
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from targets(value)


def _values(node: Any) -> Iterator[Any]:
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else (node,):
        if isinstance(value, (dict, list)):
            yield from _values(value)
        else:
            yield value


def expression_code(text: str) -> str:
    """The Python of an expression, every reference ``@id`` replaced by a name of the same length."""
    return _REFERENCE.sub(lambda match: "_" * len(match[0]), text)


def parse_expression(text: str, path: Path) -> ast.Module:
    """Syntax tree of an expression without its ``$``; positions are those of ``text``.

    Raises:
        DataError: it is no Python.
    """
    try:
        return ast.parse(expression_code(text))
    except SyntaxError as error:
        raise DataError(f"{path}: the expression ${text} is no Python ({error.msg})") from error
