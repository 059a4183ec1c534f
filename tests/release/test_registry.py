from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from tools.data.checks import DataError
from tools.release.pack import write_archive
from tools.release.registry import read_index, write_registry
from tools.release.versions import Version


def write(folder: Path, name: str, version: str, file: str | None = None) -> Path:
    path = folder / (file or f"{name}_v{version}.zip")
    write_archive(path, {f"{name}/configs/metadata.json": json.dumps({"version": version}).encode()})
    return path


def test_lists(tmp_path):
    for version in ("0.5.10", "0.5.9", "0.10.0-rc.1"):
        write(tmp_path, "net", version)
    other = write(tmp_path, "atlas", "1.0.0")
    (tmp_path / ".writing-abc-net_v0.5.9.zip").write_bytes(b"what a killed pack left")
    index = write_registry(tmp_path)
    assert index == json.loads((tmp_path / "index.json").read_text())
    assert list(index["bundles"]) == ["atlas", "net"]
    assert [entry["version"] for entry in index["bundles"]["net"]] == ["0.5.9", "0.5.10", "0.10.0-rc.1"]
    content = other.read_bytes()
    entry = {"version": "1.0.0", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "url": "atlas_v1.0.0.zip"}
    assert index["bundles"]["atlas"] == [entry]
    info = json.loads((tmp_path / "model_info.json").read_text())
    assert info["atlas_v1.0.0"] == {"checksum": hashlib.sha1(content).hexdigest(), "source": other.as_uri()}
    assert len(info) == 4


def test_addresses(tmp_path):
    write(tmp_path, "net", "1.0.0")
    index = write_registry(tmp_path, "https://host/there/")
    assert index["bundles"]["net"][0]["url"] == "https://host/there/net_v1.0.0.zip"
    info = json.loads((tmp_path / "model_info.json").read_text())
    assert info["net_v1.0.0"]["source"] == "https://host/there/net_v1.0.0.zip"


def test_monai_downloads_by_the_source(tmp_path):
    from monai.bundle import download

    write(tmp_path, "net", "1.0.0")
    write_registry(tmp_path)
    source = json.loads((tmp_path / "model_info.json").read_text())["net_v1.0.0"]["source"]
    download(name="net", url=source, bundle_dir=str(tmp_path / "to"), progress=False)
    assert (tmp_path / "to/net/configs/metadata.json").is_file()


@pytest.mark.parametrize(
    ("prepare", "url", "message"),
    [
        (lambda folder: None, "", "no archives"),
        (lambda folder: write(folder, "net", "1.0.0", "net_v2.0.0.zip"), "", r"must be named net_v1.0.0.zip"),
        (lambda folder: write(folder, "net", "1.0.0"), "host/there", "must begin with https"),
        (lambda folder: (folder / "a_v1.0.0.zip").write_bytes(b"PK"), "", r"a_v1.0.0.zip: truncated"),
        (lambda folder: zipfile.ZipFile(folder / "a_v1.0.0.zip", "w").close(), "", "one folder at the top"),
    ],
)
def test_folders_that_cannot_be_listed(tmp_path, prepare, url, message):
    prepare(tmp_path)
    with pytest.raises(DataError, match=message):
        write_registry(tmp_path, url)
    assert not (tmp_path / "index.json").exists()


ENTRY = {"version": "1.0.0", "sha256": "0" * 64, "size": 1, "url": "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no registry's index.json"),
        ({"bundles": []}, "no registry's index.json"),
        ({"bundles": {"net": [{}]}}, "no registry's index.json"),
        ({"bundles": {"net": [{**ENTRY, "sha256": "0"}]}}, "needs url, size and sha256"),
        ({"bundles": {"net": [{**ENTRY, "size": "1"}]}}, "needs url, size and sha256"),
        ({"bundles": {"net": [{**ENTRY, "url": ""}]}}, "needs url, size and sha256"),
        ({"bundles": {"net": [ENTRY, ENTRY]}}, "twice"),
        ({"bundles": {"../net": [ENTRY]}}, "bundle name"),
        ({"bundles": {"net": [{**ENTRY, "version": "1"}]}}, "three numbers"),
    ],
)
def test_faulty_lists(tmp_path, content, message):
    (tmp_path / "index.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_index(tmp_path / "index.json", "there")


def test_read(tmp_path):
    (tmp_path / "index.json").write_text(json.dumps({"bundles": {"net": [{**ENTRY, "version": "0.10.0"}, {**ENTRY, "version": "0.9.0"}]}}))
    assert list(read_index(tmp_path / "index.json", "there")["net"]) == [Version("0.9.0"), Version("0.10.0")]
