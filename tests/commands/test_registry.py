from __future__ import annotations

import json

from tools.__main__ import main
from tools.release.pack import write_archive


def test_lists_are_written(tmp_path, capsys):
    for version in ("0.10.0", "0.9.0"):
        files = {"net/configs/metadata.json": json.dumps({"version": version}).encode()}
        write_archive(tmp_path / f"net_v{version}.zip", files)
    assert main(["registry", str(tmp_path), "--url", "https://host/x"]) == 0
    assert capsys.readouterr().out == "net: 0.9.0, 0.10.0\nwritten: index.json, model_info.json\n"
    assert json.loads((tmp_path / "model_info.json").read_text())["net_v0.9.0"]["source"] == "https://host/x/net_v0.9.0.zip"


def test_nothing_to_do(capsys):
    assert main(["registry"]) == 2
    assert capsys.readouterr().err == "give the folder of the archives, or --page bundles\n"


def test_a_folder_without_a_page(tmp_path, capsys):
    assert main(["registry", "--page", str(tmp_path)]) == 2
    assert "README.md: missing" in capsys.readouterr().err
