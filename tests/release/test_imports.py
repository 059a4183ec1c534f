from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tools.data.checks import DataError
from tools.release.imports import closure, imported

FILES = {
    "__init__.py": "",
    "a.py": "from pkg.b import thing\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pkg import unused\n",
    "b/__init__.py": "from .c import d\n",
    "b/c.py": "def f():\n    import yaml.nodes, os, monai\nd = 1\n",
    "unused.py": "import requests\n",
    "lazy.py": "x = import_module('pkg.unused')\n",
}


@pytest.fixture
def packages(tmp_path) -> dict[str, Path]:
    for name, text in FILES.items():
        (tmp_path / "pkg" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pkg" / name).write_text(text)
    return {"pkg": tmp_path / "pkg"}


@pytest.mark.parametrize(
    ("roots", "expected"),
    [
        (["pkg.a"], ["pkg", "pkg.a", "pkg.b", "pkg.b.c"]),
        (["pkg.b.c.f"], ["pkg", "pkg.b", "pkg.b.c"]),
        (["pkg.lazy"], ["pkg", "pkg.lazy", "pkg.unused"]),
        (["os.path"], []),
    ],
)
def test_closure(packages, roots, expected):
    assert list(closure(roots, packages)) == expected


def test_closure_needs_a_package(packages):
    (packages["pkg"] / "__init__.py").unlink()
    with pytest.raises(DataError, match="no package"):
        closure(["pkg.a"], packages)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from .. import x", ["p", "p.x"]),
        ("from .y import z as w", ["p.q.y", "p.q.y.z"]),
        ("from m import *", ["m"]),
        ("optional_import('n.o')", ["n.o"]),
    ],
)
def test_imported(source, names):
    assert list(imported(ast.parse(source), "p.q.r")) == names
