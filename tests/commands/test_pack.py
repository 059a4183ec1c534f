from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tools.__main__ import main
from tools.release.verify import verify

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"


@pytest.mark.parametrize("name", ["deepatlas", "multidomain_segmentation"])
def test_the_bundles_of_the_repository(tmp_path, capsys, name):
    assert main(["pack", str(BUNDLES / name), "--to", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    assert capsys.readouterr().out == f"{path}\n"
    assert path.name == f"{name}_v0.1.0.zip"
    with zipfile.ZipFile(path) as archive:
        assert f"{name}/{name}_0_1_0/networks.py" in archive.namelist()
    # only what has no weights yet, or no evaluation beside them, is wrong with an archive
    codes = {fault.code for fault in verify(path)}
    assert codes <= ({"metrics-missing"} if name == "deepatlas" else {"metrics-missing", "weights-missing", "network"})


def test_no_bundle(tmp_path, capsys):
    assert main(["pack", str(tmp_path), "--to", str(tmp_path / "dist")]) == 2
    assert "configs/metadata.json: missing" in capsys.readouterr().err
