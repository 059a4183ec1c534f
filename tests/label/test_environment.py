from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.data.checks import DataError
from tools.label import environment
from tools.label.environment import REQUIREMENTS, VARIABLE, environment_folder, label_environment


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "anatomy-bundles"


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """What would have been run; ``venv`` makes a Python."""
    made = []

    def run(command, **_):
        made.append(command)
        if command[1:3] == ["-m", "venv"]:
            (Path(command[3]) / "bin").mkdir(parents=True)
            (Path(command[3]) / "bin" / "python").touch()

    monkeypatch.setattr(environment.subprocess, "run", run)
    return made


def test_every_line_pins_one_version():
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines)
    assert "monailabel==0.8.5" in lines
    names = [line.split("==")[0].lower() for line in lines]
    assert len(names) == len(set(names))


def test_pins_are_those_of_the_bundles():
    def pins(path: Path) -> dict[str, str]:
        return dict(line.split("==") for line in path.read_text().splitlines() if "==" in line and not line.startswith("#"))

    shared, own = pins(REQUIREMENTS.with_name("requirements.txt")), pins(REQUIREMENTS)
    assert {name: own[name] for name in own.keys() & shared.keys()} == {name: shared[name] for name in own.keys() & shared.keys()}
    assert {own[f"itk-{part}"] for part in ("core", "io", "numerics")} == {shared["itk"]}


def test_made_once_and_linked_when_complete(cache, commands, capsys):
    folder = label_environment()
    assert folder == environment_folder()
    assert folder.parent == cache
    assert (folder / "bin" / "python").is_file()
    assert [path for path in cache.iterdir() if path.is_symlink()] == [folder]
    assert commands[1][-1].startswith("torch==")
    assert commands[2][-3:] == ["--no-deps", "--requirement", str(REQUIREMENTS)]
    assert str(folder) in capsys.readouterr().out
    assert label_environment() == folder
    assert len(commands) == 3


def test_other_requirements_are_another_environment(cache, tmp_path):
    other = tmp_path / "requirements.txt"
    other.write_text(REQUIREMENTS.read_text() + "\n")
    assert environment_folder(other) != environment_folder()


def test_a_failed_one_leaves_nothing_and_says_why(cache, commands, monkeypatch):
    run = environment.subprocess.run

    def fail(command, **options):
        run(command, **options)
        if "pip" in command:
            raise subprocess.CalledProcessError(1, command, stderr="WARNING: slow\nERROR: No matching distribution\nhint: look\n")

    monkeypatch.setattr(environment.subprocess, "run", fail)
    with pytest.raises(DataError, match="could not be made: ERROR: No matching distribution"):
        label_environment()
    assert not list(cache.iterdir())


def test_an_environment_that_is_gone_is_made_anew(cache, commands):
    folder = label_environment()
    (folder / "bin" / "python").unlink()
    assert (label_environment() / "bin" / "python").is_file()
    assert len(commands) == 6


def test_a_named_folder_is_used(tmp_path, monkeypatch, commands):
    (tmp_path / "own" / "bin").mkdir(parents=True)
    (tmp_path / "own" / "bin" / "python").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    assert label_environment() == tmp_path / "own"
    assert not commands
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own" / "bin"))
    with pytest.raises(DataError, match="a folder without an environment"):
        label_environment()
