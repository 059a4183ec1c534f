from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tools.__main__ import main
from tools.release.faults import CODES

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "deepatlas"


@pytest.fixture
def unfinished(tmp_path) -> Path:
    """A bundle of metadata and licence."""
    (tmp_path / "net/configs").mkdir(parents=True)
    shutil.copy(BUNDLE / "LICENSE", tmp_path / "net")
    (tmp_path / "net/configs/metadata.json").write_text('{"version": "1.0"}')
    return tmp_path / "net"


def test_a_line_a_fault_and_status_1(unfinished, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(unfinished)])
    assert stopped.value.code == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert "file-missing: configs/inference.json: missing" in lines
    assert "changelog: configs/metadata.json: the changelog does not hold version 1.0" in lines
    assert all(line.split(":")[0] in CODES for line in lines)
    assert last == f"{unfinished}: {len(lines)} faults"


def test_codes_are_explained(unfinished, capsys):
    with pytest.raises(SystemExit):
        main(["verify", str(unfinished), "--codes"])
    assert "weights-unsafe    weights do not load with weights_only=True" in capsys.readouterr().out


def test_nothing_there(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "x")]) == 2
    assert "no folder and no archive" in capsys.readouterr().err


def test_no_fault(monkeypatch, capsys):
    monkeypatch.setattr("tools.commands.verify.faults_of", lambda path: [])
    assert main(["verify", "net"]) == 0
    assert capsys.readouterr().out == "net: no faults\n"
