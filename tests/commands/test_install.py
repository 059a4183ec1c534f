from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tools.__main__ import main
from tools.release.pack import write_archive
from tools.release.registry import write_registry


@pytest.fixture
def registry(tmp_path) -> Path:
    folder = tmp_path / "registry"
    files = {"configs/metadata.json": {"version": "1.0.0"}, "configs/train.json": {"a": "$print(1)", "b": {"_target_": "net.f"}}}
    write_archive(folder / "net_v1.0.0.zip", {f"net/{name}": json.dumps(content).encode() for name, content in files.items()})
    write_registry(folder)
    return folder


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


EXECUTED = "  expression: $print(1)   [configs/train.json]\n  target: net.f   [configs/train.json]\n"


@pytest.mark.parametrize("option", ["--from", "--from="])
def test_trusted_by_an_option(registry, tmp_path, capsys, option):
    source = [option, str(registry)] if option == "--from" else [option + str(registry)]
    assert main(["install", "net", *source, "--to", str(tmp_path / "to"), "--trust", "true"]) == 0
    printed = capsys.readouterr().out
    assert EXECUTED in printed
    assert printed.endswith(f"{tmp_path / 'to/net'}\n")
    assert (tmp_path / "to/net/configs/train.json").is_file()


@pytest.mark.parametrize(("answer", "status"), [("yes\n", 0), (" YES \n", 0), ("y\n", 2), ("\n", 2), ("no\n", 2)])
def test_asked(registry, tmp_path, capsys, monkeypatch, answer, status):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert main(["install", "net", "--from", str(registry), "--to", str(tmp_path / "to")]) == status
    printed = capsys.readouterr()
    assert printed.out.index(EXECUTED) < printed.out.index("Trust it?")
    assert (tmp_path / "to").exists() is (status == 0)
    assert ("not trusted; nothing was installed" in printed.err) is (status == 2)


def test_nobody_to_ask(registry, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert main(["install", "net", "--from", str(registry), "--to", str(tmp_path / "to")]) == 2
    assert "--trust true says yes" in capsys.readouterr().out
    assert not (tmp_path / "to").exists()


def test_a_misspelled_option(registry, capsys):
    assert main(["install", "net", "--form", str(registry), "--to", "x"]) == 2
    assert "no option --form" in capsys.readouterr().err
