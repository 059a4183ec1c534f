"""What the files of a bundle make Python do when it is used: its author's code, to be read before it is run.

MONAI evaluates every string of a config that begins with ``$``, imports and calls what a ``_target_`` names, and hands ``logging.conf`` to
a module of Python's that evaluates ``class`` and ``args``.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.data.checks import DataError, read_json
from tools.release.configs import expressions, targets

__all__ = ["executed"]

KNOWN = ("monai", "torch", "ignite")  # packages whose classes a config may name without being noted


def executed(root: str | os.PathLike) -> list[str]:
    """What the configs of an unpacked bundle execute, a line each, with the files it stands in.

    Args:
        root: folder of the bundle; it is read, and nothing in it is imported.

    Returns:
        lines ``expression: ...``, ``target: ...`` (calls of other things than classes of MONAI, PyTorch and ignite), ``logging: ...``, and
        ``code: ...`` for the Python files that the bundle brings; files that cannot be read are ``unreadable: ...``, for MONAI may
        read them.
    """
    root = Path(root)
    places: dict[str, list[str]] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            for line in _lines(path):
                found = places.setdefault(line, [])
                name = path.relative_to(root).as_posix()
                if name not in found:
                    found.append(name)
    order = ("unreadable", "expression", "target", "logging", "code")
    lines = sorted(places, key=lambda line: order.index(line.split(":")[0]))
    return [f"{line}   [{', '.join(places[line])}]" for line in lines]


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".json":
        try:
            content = read_json(path)
        except DataError:
            yield f"unreadable: {path.name} is no JSON"
            return
        yield from (f"expression: ${_one_line(expression)}" for expression in expressions(content))
        yield from (f"target: {_one_line(target)}" for target in targets(content) if not _is_known(target))
        yield from (f"expression: {_one_line(text)}" for text in _macros(content))
    elif path.suffix in (".yaml", ".yml"):
        yield f"unreadable: {path.name} is YAML, which is not looked into"
    elif path.suffix in (".conf", ".ini", ".cfg"):
        yield from _logging(path)
    elif path.suffix in (".py", ".so", ".pyd", ".pyc", ".pth", ".ts"):
        yield f"code: {'Python files' if path.suffix == '.py' else path.suffix + ' files'} of its own"


def _is_known(target: str) -> bool:
    # MONAI looks a name without dots up among its own. Functions are told all the same: torch.hub.load runs whatever it is given.
    package, _, name = target.rpartition(".")
    return name[:1].isupper() and (not package or package.split(".")[0] in KNOWN)


def _macros(node: Any) -> Iterator[str]:
    """Strings by which MONAI reads other files into a config: ``%FILE::id``."""
    if isinstance(node, str):
        if node.startswith("%") and (".json" in node or ".y" in node):
            yield node
    else:
        for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            yield from _macros(value)


def _logging(path: Path) -> Iterator[str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError):
        yield f"unreadable: {path.name} is no logging config"
        return
    for section in parser.sections():
        for option in ("class", "args", "kwargs"):
            if parser.has_option(section, option):
                yield f"logging: {option} = {_one_line(parser.get(section, option))}"


def _one_line(text: str) -> str:
    """The text in one line, with everything that a terminal would act on made visible."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
