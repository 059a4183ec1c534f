"""One archive a bundle, that needs no repository: the shared package inside, every name of its own, the same bytes from the same input.

The archive's folder ``NAME/`` holds what the bundle's folder does, and of the shared package the modules that the bundle needs. Both
packages bear the bundle's name and version (``deepatlas_0_1_0``, ``deepatlas_tools_0_1_0``), so that archives live in one Python process
with each other, with older versions of themselves, and with whatever else is called ``tools``.
"""

from __future__ import annotations

import ast
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tools
from tools.data.checks import DataError, read_json
from tools.data.files import atomic_path
from tools.release.bundle import SHARED, Bundle, check_name, shipped_files
from tools.release.configs import expressions, parse_expression, targets
from tools.release.imports import closure, imported, module_file, module_name
from tools.release.rename import Renaming
from tools.release.usage import COMMANDS_PAGE, commands_page

__all__ = ["PACKED_PATH", "SOURCE_PATH", "archive_name", "config_roots", "pack", "packed_files", "write_archive"]

#: expression by which the configs of the repository find both packages, and what it becomes in an archive, where one folder holds both
SOURCE_PATH = (
    "$sys.path.__setitem__(slice(0, 0), [p for p in (@bundle_root, @bundle_root + '/../..') "
    "if sys.path[:2] != [@bundle_root, @bundle_root + '/../..']])"
)
PACKED_PATH = "$sys.path.__setitem__(slice(0, 0), [p for p in (@bundle_root,) if sys.path[:1] != [@bundle_root]])"

_EPOCH = (1980, 1, 1, 0, 0, 0)
_README = "../../../README.md"


def archive_name(name: str, version: str) -> str:
    """Name of an archive as MONAI's downloader wants it: ``NAME_v<version>.zip``."""
    return f"{name}_v{version}.zip"


def pack(bundle_dir: str | os.PathLike, to: str | os.PathLike, shared: str | os.PathLike | None = None) -> Path:
    """Write the archive of a bundle of this repository, atomically.

    Args:
        bundle_dir: the bundle's folder.
        to: folder for ``NAME_v<version>.zip``.
        shared: folder of the shared package; by default the one that runs.

    Returns:
        path of the archive.

    Raises:
        DataError: the bundle, a config or a module in it cannot be used.
    """
    bundle = Bundle.read(bundle_dir)
    files = packed_files(bundle, Path(tools.__file__).parent if shared is None else Path(shared))
    path = Path(to) / archive_name(bundle.name, str(bundle.version))
    write_archive(path, {f"{bundle.name}/{name}": content for name, content in files.items()})
    return path


def packed_files(bundle: Bundle, shared: Path) -> dict[str, bytes]:
    """The content of an archive, its top folder left out: path with forward slashes to bytes.

    Args:
        bundle: a bundle of the repository.
        shared: folder of the shared package.

    Raises:
        DataError: see :func:`pack`.
    """
    check_name(bundle.name)
    if bundle.name not in bundle.packages:
        raise DataError(f"{bundle.root}: no package {bundle.name}/ with an __init__.py; only a bundle of the repository can be packed")
    own = bundle.root / bundle.name
    packages = {bundle.name: own, SHARED: shared}
    roots = [module_name(path, bundle.root) for path in sorted(own.rglob("*.py"))]
    for config in bundle.configs():
        roots += config_roots(read_json(config), config, packages)
    modules = closure(roots, packages)
    renaming = Renaming({bundle.name: bundle.packed_package, SHARED: bundle.packed_shared}, modules.keys())
    result = {}
    for path in shipped_files(bundle):
        relative = path.relative_to(bundle.root)
        name = "/".join((renaming.names.get(relative.parts[0], relative.parts[0]), *relative.parts[1:]))
        result[name] = _packed_content(path, bundle, renaming)
    for module, path in modules.items():
        if module.split(".")[0] == SHARED:
            relative = path.relative_to(shared).as_posix()
            result[f"{bundle.packed_shared}/{relative}"] = renaming.python(_read(path), path).encode()
    for path in _data_files(shared, modules):
        result[f"{bundle.packed_shared}/{path.relative_to(shared).as_posix()}"] = path.read_bytes()
    result[f"docs/{COMMANDS_PAGE}"] = commands_page(bundle).encode()
    return dict(sorted(result.items()))


def config_roots(config: Any, path: Path, packages: Mapping[str, Path]) -> list[str]:
    """Dotted names of the packages' modules that a parsed config refers to, in ``_target_`` and in expressions.

    Raises:
        DataError: a ``_target_`` names a module that is not there, or an expression is no Python.
    """
    found = []
    for target in targets(config):
        if target.split(".")[0] in packages:
            module = target.rpartition(".")[0]
            # a class may hold what is called: tools.data.plan.Plan.load
            if module_file(module, packages) is None and module_file(module.rpartition(".")[0], packages) is None:
                raise DataError(f"{path}: _target_ {target}: no such module")
            found.append(target)
    for expression in expressions(config):
        tree = parse_expression(expression, path)
        found += imported(tree)
        found += _attributes(tree)
    return [name for name in found if name.split(".")[0] in packages]


def write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip whose bytes are a function of names and contents alone: sorted, one date, one mode, stored.

    Stored, because what compression gives differs between versions of zlib, and weights hardly shrink.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.create_system = 3  # Unix, wherever it is written
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])


def _packed_content(path: Path, bundle: Bundle, renaming: Renaming) -> bytes:
    relative = path.relative_to(bundle.root)
    if path.suffix == ".py":
        return renaming.python(_read(path), path).encode()
    if relative.parts[0] == "configs":
        if path.suffix in (".yaml", ".yml"):
            raise DataError(f"{path}: configs of a release are JSON")
        if path.suffix == ".json":
            return _packed_config(path, renaming).encode()
    if path.suffix == ".md":
        # A path to a file, the folder as an option, and the folder by itself; what `python -m tools` gets is one of the repository.
        forms = ("{}/", "--bundle_root {}", "`{}`")
        paths = {form.format(f"bundles/{bundle.name}"): form.format(bundle.name) for form in forms}
        return renaming.markdown(_read(path), paths, {_README: COMMANDS_PAGE}).encode()
    return path.read_bytes()


def _packed_config(path: Path, renaming: Renaming) -> str:
    text = _read(path).replace(json.dumps(SOURCE_PATH), json.dumps(PACKED_PATH))
    for expression in expressions(json.loads(text)):
        if "/.." in expression:
            raise DataError(f"{path}: the expression ${expression} leads out of the bundle's folder")
    return renaming.config(text, path)


def _attributes(tree: ast.AST) -> list[str]:
    """Dotted names in an expression, such as ``tools.data.plan.Plan``."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if all(part.isidentifier() for part in text.split(".")):
                names.append(text)
    return names


def _data_files(shared: Path, modules: Mapping[str, Path]) -> Iterable[Path]:
    """Files that are no Python beside the shared package's modules that are packed."""
    folders = {path.parent for module, path in modules.items() if module.split(".")[0] == SHARED and path.name == "__init__.py"}
    for folder in sorted(folders):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix not in (".py", ".pyc") and not path.name.startswith("."):
                yield path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error})") from error
