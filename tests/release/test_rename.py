from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.data.checks import DataError
from tools.release.rename import Renaming

HERE = Path("here")
RENAMING = Renaming({"tools": "new_tools", "net": "net_1"}, {"tools", "tools.data", "tools.data.plan", "net", "net.losses"})


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import tools", "import new_tools"),
        ("import os, tools.data as d", "import os, new_tools.data as d"),
        ("from tools.data.plan import Plan", "from new_tools.data.plan import Plan"),
        ("from \\\n  tools import data", "from \\\n  new_tools import data"),
        ("from . import tools", "from . import tools"),
        ("from os import tools\ntools.data()", "from os import tools\ntools.data()"),
        ("import tools.data\nx = (tools.data.plan, a.tools)", "import new_tools.data\nx = (new_tools.data.plan, a.tools)"),
        ("def f():\n    from net import losses", "def f():\n    from net_1 import losses"),
        ("tools = 3\nnet(tools)", "tools = 3\nnet(tools)"),
        ("é = 1; import tools; tools.x", "é = 1; import new_tools; new_tools.x"),
        ("x = '\x0c'\nfrom net import y", "x = '\x0c'\nfrom net_1 import y"),
        ("# the tools of tools.data.plan, and tools.nothing", "# the tools of new_tools.data.plan, and tools.nothing"),
        ('"""See :mod:`tools.data`; good tools."""', '"""See :mod:`new_tools.data`; good tools."""'),
        ("import_module('tools.data')", "import_module('new_tools.data')"),
        ("x = 'my.tools.data'", "x = 'my.tools.data'"),
    ],
)
def test_python(source, expected):
    assert RENAMING.python(source, HERE) == expected


@pytest.mark.parametrize(
    "source", ["import tools\ndef f(tools): pass", "import tools\ntools = 3", "import tools\nfrom os import path as tools"]
)
def test_a_name_of_two_meanings_is_refused(source):
    with pytest.raises(DataError, match="here: 'tools' is imported and is the name of something else"):
        RENAMING.python(source, HERE)


def test_names_in_f_strings_are_refused():
    with pytest.raises(DataError, match="f-string"):
        RENAMING.python("import tools\nx = f'{tools.data}'", HERE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tools.data.plan.Plan(@plan)", "new_tools.data.plan.Plan(@plan)"),
        ("import tools.data", "import new_tools.data"),
        ("@tools + @net#tools", "@tools + @net#tools"),
        ("[tools for tools in @net::tools]", "[tools for tools in @net::tools]"),
        ("__import__('net.losses').f(@x, '@net tools.data')", "__import__('net_1.losses').f(@x, '@net new_tools.data')"),
        ("a % tools.data.b", "a % new_tools.data.b"),
    ],
)
def test_expression(text, expected):
    assert RENAMING.expression(text, HERE) == expected


def test_no_python_in_an_expression():
    with pytest.raises(DataError, match="here: the expression .* is no Python"):
        RENAMING.expression("f(", HERE)


def test_config_keeps_its_layout_and_its_keys():
    text = '{"tools.data": ["$tools.data.f(@a)",\n   "tools.data.plan.Plan"],  "note": "tools \\"tools\\" é", "net": 1}'
    result = RENAMING.config(text, HERE)
    assert result == '{"tools.data": ["$new_tools.data.f(@a)",\n   "new_tools.data.plan.Plan"],  "note": "tools \\"tools\\" é", "net": 1}'
    json.loads(result)


def test_markdown():
    text = "tools.data `tools.data.plan` [a](../../../R.md) [b](../../x.md) [c](d.md)\n```\nrun bundles/net/c.json x/bundles/net/\n```\n"
    expected = "tools.data `new_tools.data.plan` [a](commands.md) b [c](d.md)\n```\nrun net/c.json x/bundles/net/\n```\n"
    assert RENAMING.markdown(text, {"bundles/net/": "net/"}, {"../../../R.md": "commands.md"}) == expected
