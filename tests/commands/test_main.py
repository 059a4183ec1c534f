from __future__ import annotations

import sys
import types

import pytest

from tools import __main__ as command_line
from tools.data.checks import DataError


@pytest.fixture
def calls(monkeypatch):
    """A command ``toy`` with the subcommand ``add``, and one ``flat``; the list holds what they were called with."""
    made = []

    def add(to: str, count: int = 1, name: str | None = None, deep: bool = True) -> None:
        """Add."""
        made.append((to, count, name, deep))

    def flat(value: str) -> None:
        raise DataError(f"{value}: truncated\nfile")

    module = types.ModuleType("toy_command")
    module.COMMANDS, module.flat = {"add": add}, flat
    monkeypatch.setitem(sys.modules, "toy_command", module)
    monkeypatch.setitem(command_line.COMMANDS, "toy", ("toy_command", "COMMANDS", "a toy"))
    monkeypatch.setitem(command_line.COMMANDS, "flat", ("toy_command", "flat", "another"))
    return made


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--to=x", ("x", 1, None, True)),
        ("--to 1e3", ("1e3", 1, None, True)),
        ("--to a#b --count 3", ("a#b", 3, None, True)),
        ("--to a,b --name None", ("a,b", 1, None, True)),
        ("x --deep false", ("x", 1, None, False)),
        ("x --deep True", ("x", 1, None, True)),
        ("x --nodeep", ("x", 1, None, False)),
        ("x --count (1,2)", ("x", (1, 2), None, True)),
    ],
)
def test_arguments_reach_the_command_as_typed(calls, typed, expected):
    assert command_line.main(["toy", "add", *typed.split()]) == 0
    assert calls == [expected]


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("tpy", "no command 'tpy'; did you mean toy?"),
        ("toy ad", "toy has no 'ad'; did you mean add?"),
        ("toy zzz", "toy has no 'zzz'; known: add"),
        ("toy add --to x --cuont 3", "toy add has no option --cuont; did you mean --count?"),
        ("toy add x --deep maybe", "expected true or false, got 'maybe'"),
        ("flat file.nii", "file.nii: truncated file"),
    ],
)
def test_a_fault_is_one_line_and_status_2(calls, capsys, typed, line):
    assert command_line.main(typed.split()) == 2
    assert capsys.readouterr() == ("", line + "\n")
    assert calls == []


def test_what_the_system_refuses_is_one_line(calls, monkeypatch, tmp_path, capsys):
    def flat(value: str) -> None:
        (tmp_path / "file").touch()
        (tmp_path / "file").mkdir()

    monkeypatch.setattr(sys.modules["toy_command"], "flat", flat)
    assert command_line.main(["flat", "x"]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'file'}: file exists\n"


def test_a_stray_argument_stops_before_the_command_runs(calls):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["toy", "add", "x", "1", "name", "true", "stray"])
    assert stopped.value.code == 2
    assert calls == []


def test_a_missing_argument_is_status_2(calls):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["toy", "add"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_alone_it_lists_the_commands(capsys, arguments):
    assert command_line.main(arguments) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("data", "apply-field", "benchmark", "experiment"))


@pytest.mark.parametrize("typed", ["add --help", "add x --help", "add --to x --count 3 -h"])
def test_help_is_of_the_command_whatever_else_was_typed(calls, capsys, typed):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["toy", *typed.split()])
    assert stopped.value.code == 0
    page = "".join(capsys.readouterr())
    assert "--count" in page
    assert "GROUP" not in page
    assert calls == []


def test_help_of_several_commands_names_them(calls, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(["toy", "--help"])
    assert stopped.value.code == 0
    assert "add" in "".join(capsys.readouterr())


def test_other_errors_are_not_hidden(calls, monkeypatch):
    def broken() -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(sys.modules["toy_command"], "flat", broken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        command_line.main(["flat"])
