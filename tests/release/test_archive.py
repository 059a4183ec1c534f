from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from tools.data.checks import DataError
from tools.release.archive import read_archive, unpack

METADATA = ("net/configs/metadata.json", json.dumps({"version": "1.2.3"}))


def write(path: Path, *entries: tuple[str | zipfile.ZipInfo, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def test_contents(tmp_path):
    contents = read_archive(write(tmp_path / "a.zip", METADATA, ("net/a/b.txt", "x")))
    assert (contents.name, str(contents.version)) == ("net", "1.2.3")
    assert contents.files == ("net/configs/metadata.json", "net/a/b.txt")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("net/../x", "")], "leads out"),
        ([("../x", "")], "leads out"),
        ([("/etc/x", "")], "leads out"),
        ([("net//x", "")], "leads out"),
        ([("net/./x", "")], "leads out"),
        ([("net\\..\\x", "")], "leads out"),
        ([("C:/x", "")], "leads out"),
        ([("net/x:stream", "")], "leads out"),
        ([(link("net/x"), "/etc/passwd")], "a link or another special file"),
        ([("net/a", "1"), ("net/A", "2")], "stands in it twice"),
        ([("net/caf\u00e9", "1"), ("net/cafe\u0301", "2")], "stands in it twice"),
        ([("net/a", "1"), ("net/a/b", "2")], "is a file and a folder"),
        ([("net/a\n", "1")], "cannot be written everywhere"),
        ([("net/aux.txt", "1")], "cannot be written everywhere"),
        ([("net/a.", "1")], "cannot be written everywhere"),
        ([("other/a", "1")], "one folder at the top"),
        ([("a", "1")], "one folder at the top"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unsafe_archives(tmp_path, entries, message):
    with pytest.raises(DataError, match=message):
        read_archive(write(tmp_path / "a.zip", METADATA, *entries))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_in_it_twice(tmp_path):
    with pytest.raises(DataError, match="stands in it twice"):
        read_archive(write(tmp_path / "a.zip", METADATA, METADATA))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net/configs/meta.json", "{}", "no net/configs/metadata.json"),
        ("net/configs/metadata.json", "{}", "a version is three numbers"),
        ("net/configs/metadata.json", "[1]", "metadata.json is not readable"),
        ("net/configs/metadata.json", "{", "metadata.json is not readable"),
        ("net_v1/configs/metadata.json", "{}", "bundle name"),
    ],
)
def test_archives_of_no_bundle(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read_archive(write(tmp_path / "a.zip", (name, content)))


@pytest.mark.parametrize("keep", [0, 10, -1, -60])
def test_truncated(tmp_path, keep):
    path = write(tmp_path / "a.zip", METADATA, ("net/x", "content" * 100))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a.zip: truncated"):
        read_archive(path)


def test_a_flipped_byte(tmp_path):
    path = write(tmp_path / "a.zip", METADATA, ("net/x", "content" * 100))
    content = bytearray(path.read_bytes())
    content[content.index(b"contentcontent") + 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged: the checksum of net/x|truncated"):
        read_archive(path)


def test_damaged_whatever_packed_it(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(*METADATA)
        archive.writestr("net/x", bytes(range(256)) * 20)
    content = bytearray(path.read_bytes())
    content[content.index(b"net/x") + 40] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged: the checksum of net/x|truncated"):
        read_archive(path)


def test_what_would_fill_the_disk(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(*METADATA)
        archive.writestr("net/zeros", b"0" * 2**21)
    assert "net/zeros" in read_archive(path).files  # honest, if well compressed
    size = (2**21).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (2**31).to_bytes(4, "little")))
    with pytest.raises(DataError, match="more than 1 GiB unpacked"):
        read_archive(path)


def test_unpack(tmp_path):
    path = write(tmp_path / "a.zip", ("net/", ""), METADATA, ("net/a/b.txt", "x"))
    folder = tmp_path / "to"
    folder.mkdir()
    unpack(path, folder)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == ["a/b.txt", "configs/metadata.json"]
    assert (folder / "a/b.txt").read_text() == "x"
    assert not (folder / "a/b.txt").stat().st_mode & 0o111
