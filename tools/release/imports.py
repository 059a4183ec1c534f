"""Which modules some code needs, found by reading it: nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from tools.data.checks import DataError

__all__ = ["closure", "imported", "module_file", "module_name", "parse_module"]

_IMPORTERS = ("import_module", "__import__", "optional_import")


def module_file(name: str, packages: Mapping[str, Path]) -> Path | None:
    """File of a module, or None where there is none.

    Args:
        name: dotted name.
        packages: top-level package to its folder.
    """
    top, *rest = name.split(".")
    if top not in packages:
        return None
    path = packages[top].joinpath(*rest)
    for candidate in (path / "__init__.py", path.with_name(path.name + ".py")):
        if candidate.is_file():
            return candidate
    return None


def module_name(path: Path, root: Path) -> str:
    """Dotted name of a file below ``root``; a package's is that of its folder."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse_module(path: Path) -> ast.Module:
    """Syntax tree of a Python file.

    Raises:
        DataError: the file is no Python.
    """
    try:
        return _parsed(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: no Python ({error})") from error


@lru_cache(maxsize=512)
def _parsed(source: str) -> ast.Module:
    return ast.parse(source)  # several checks of a bundle read the same files


def imported(tree: ast.Module, module: str = "", is_package: bool = False) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it, but under ``if TYPE_CHECKING``.

    ``from a import b`` gives both ``a`` and ``a.b``, for ``b`` may be a module.

    Args:
        tree: its syntax tree.
        module: its dotted name, which relative imports start from.
        is_package: whether it is an ``__init__.py``.
    """
    for node in _import_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *([base] if base else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            yield node.args[0].value


def _import_nodes(tree: ast.Module) -> list[ast.AST]:
    """Import statements and calls of importing functions, kept with the tree."""
    found = getattr(tree, "_imports", None)
    if found is None:
        found = tree._imports = [node for node in _executed(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) or _imports(node)]
    return found


def _imports(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in _IMPORTERS


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield from _executed(other)
        else:
            yield from _executed(child)


def closure(roots: Iterable[str], packages: Mapping[str, Path]) -> dict[str, Path]:
    """All modules of some packages that the roots need, the packages above them included: name to file, sorted.

    Args:
        roots: dotted names of modules, or of what is in them.
        packages: top-level package to its folder; everything else is passed over.

    Raises:
        DataError: a name of the packages leads to no module.
    """
    found: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        parts = name.split(".")
        if parts[0] not in packages:
            continue
        if module_file(parts[0], packages) is None:
            raise DataError(f"{packages[parts[0]]}: no package (it has no __init__.py)")
        for length in range(1, len(parts) + 1):
            module = ".".join(parts[:length])
            path = module_file(module, packages)
            if path is None:
                break
            if module not in found:
                found[module] = path
                waiting += imported(parse_module(path), module, path.name == "__init__.py")
    return dict(sorted(found.items()))
