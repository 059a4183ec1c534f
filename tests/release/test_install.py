from __future__ import annotations

import functools
import json
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tools.data.checks import DataError
from tools.release import install as module
from tools.release.archive import read_archive
from tools.release.hashes import sha256_of
from tools.release.install import install, is_of_this_collection
from tools.release.pack import write_archive
from tools.release.registry import write_registry


def publish(folder: Path, version: str, **files: str) -> Path:
    """Add a version of the bundle ``net`` to a registry."""
    contents = {"configs/metadata.json": json.dumps({"version": version}), "code.py": f"version = {version!r}\n", **files}
    path = folder / f"net_v{version}.zip"
    write_archive(path, {f"net/{name}": text.encode() for name, text in contents.items()})
    write_registry(folder)
    return path


@pytest.fixture
def registry(tmp_path) -> Path:
    """A registry with the versions 0.9.0, 0.10.0 and 1.0.0-rc.1 of ``net``."""
    folder = tmp_path / "registry"
    for version in ("0.9.0", "0.10.0", "1.0.0-rc.1"):
        publish(folder, version)
    return folder


def trusting(lines: list[str]) -> bool:
    return True


def add(registry: Path | str, to: Path, version: str | None = None, force: bool = False) -> Path:
    return install("net", str(registry), to, version, force, trusting)


def installed(to: Path) -> str:
    return (to / "net/code.py").read_text().split("'")[1]


def test_the_newest_release(registry, tmp_path):
    assert add(registry, tmp_path / "to") == tmp_path / "to/net"
    assert installed(tmp_path / "to") == "0.10.0"
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == [".net.json", "net"]


def test_a_version(registry, tmp_path):
    add(registry, tmp_path / "to", "1.0.0-rc.1")
    assert installed(tmp_path / "to") == "1.0.0-rc.1"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(registry, monkeypatch):
    """Address of a web server with the registry."""
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=registry)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_from_a_web_server(server, tmp_path):
    add(server, tmp_path / "to")
    assert installed(tmp_path / "to") == "0.10.0"
    add(server + "/index.json", tmp_path / "other")
    assert installed(tmp_path / "other") == "0.10.0"


def test_from_a_file_address(registry, tmp_path):
    add(registry.as_uri(), tmp_path / "to")
    assert installed(tmp_path / "to") == "0.10.0"


def test_an_older_version_is_replaced_as_a_whole(registry, tmp_path):
    publish(registry, "0.9.0", **{"gone.py": "x"})
    add(registry, tmp_path / "to", "0.9.0")
    (tmp_path / "to/net/__pycache__").mkdir()
    (tmp_path / "to/net/__pycache__/code.pyc").write_bytes(b"x")
    add(registry, tmp_path / "to")
    assert sorted(path.name for path in (tmp_path / "to/net").iterdir()) == ["code.py", "configs"]
    assert installed(tmp_path / "to") == "0.10.0"


def test_again_changes_nothing(registry, tmp_path):
    add(registry, tmp_path / "to")
    before = (tmp_path / "to/net").stat().st_ino
    install("net", str(registry), tmp_path / "to")  # nor is anything asked
    assert (tmp_path / "to/net").stat().st_ino == before


def test_force_takes_the_older_version(registry, tmp_path):
    add(registry, tmp_path / "to")
    add(registry, tmp_path / "to", "0.9.0", force=True)
    assert installed(tmp_path / "to") == "0.9.0"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def relist(registry: Path, **changes: object) -> None:
    """Change the entries of the newest release in the registry's list."""
    path = registry / "index.json"
    index = json.loads(path.read_text())
    next(entry for entry in index["bundles"]["net"] if entry["version"] == "0.10.0").update(changes)
    path.write_text(json.dumps(index))


def put(registry: Path, name: str, content: bytes = b"x") -> None:
    """An archive that is as its entry in the list says, with one more file in it."""
    path = registry / "net_v0.10.0.zip"
    metadata = json.dumps({"version": "0.10.0"}).encode()
    write_archive(path, {"net/configs/metadata.json": metadata, name: content})
    relist(registry, sha256=sha256_of(path), size=path.stat().st_size)


def half(registry: Path) -> None:
    """A truncated archive that is as its entry in the list says."""
    path = registry / "net_v0.10.0.zip"
    os.truncate(path, path.stat().st_size - 30)
    relist(registry, sha256=sha256_of(path), size=path.stat().st_size)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: flip(r / "net_v0.10.0.zip"), "its sha256 is not the registry's"),
        (lambda r: os.truncate(r / "net_v0.10.0.zip", 100), "100 bytes, the registry says"),
        (lambda r: (r / "net_v0.10.0.zip").write_bytes(b"x" * 10**5), "longer than"),
        (half, "truncated"),
        (lambda r: put(r, "../x"), "leads out"),
        (lambda r: put(r, "net/../../x"), "leads out"),
        (lambda r: put(r, "/x"), "leads out"),
        (lambda r: put(r, "net/C:x"), "leads out"),
        (lambda r: put(r, "net/CONFIGS/metadata.json"), "twice"),
        (lambda r: (r / "net_v0.10.0.zip").unlink(), "not readable"),
        (lambda r: relist(r, version="0.11.0"), "holds net 0.10.0, the registry says net 0.11.0"),
        (lambda r: relist(r, url="ftp://host/x.zip"), "which is not read from there"),
        (lambda r: (r / "index.json").write_text("{}"), "no registry's index.json"),
        (lambda r: (r / "index.json").unlink(), "not readable"),
    ],
)
@pytest.mark.parametrize("over", [None, "0.9.0"])
def test_what_is_refused_changes_nothing(registry, tmp_path, tree, over, damage, message):
    to = tmp_path / "to"
    if over is not None:
        add(registry, to, over)
    damage(registry)
    before = tree(tmp_path)
    with pytest.raises(DataError, match=message):
        add(registry, to)
    assert tree(tmp_path) == before
    assert to.exists() is (over is not None)


def test_a_web_servers_list_leads_to_no_files(server, registry, tmp_path):
    relist(registry, url=(registry / "net_v0.10.0.zip").as_uri())
    with pytest.raises(DataError, match="which is not read from there"):
        add(server, tmp_path / "to")


@pytest.mark.parametrize(
    ("change", "version", "message"),
    [
        (lambda to, r: None, "0.9.0", "version 0.10.0 is installed, which is newer than 0.9.0"),
        (lambda to, r: (to / "net/output").mkdir() or (to / "net/output/x").write_text("x"), "1.0.0-rc.1", "output/x: is not as it was"),
        (lambda to, r: (to / "net/code.py").write_text("mine"), "1.0.0-rc.1", r"code.py: is not as it was installed"),
        (lambda to, r: (to / ".net.json").unlink(), "1.0.0-rc.1", "was not installed by this command"),
        (lambda to, r: publish(r, "0.10.0", **{"new.py": "x"}), "0.10.0", "is installed from another archive"),
    ],
)
def test_what_is_there_is_not_lost(registry, tmp_path, tree, change, version, message):
    to = tmp_path / "to"
    add(registry, to, "0.10.0")
    change(to, registry)
    before = tree(to)
    with pytest.raises(DataError, match=message):
        add(registry, to, version)
    assert tree(to) == before
    add(registry, to, version, force=True)
    assert installed(to) == version


def test_a_link_in_its_place_is_not_followed(registry, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to/net").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="not a folder"):
        add(registry, tmp_path / "to")


def test_a_bundle_that_is_not_trusted(registry, tmp_path):
    asked = []

    def refuse(lines: list[str]) -> bool:
        asked.extend(lines)
        return False

    publish(registry, "0.10.0", **{"configs/train.json": json.dumps({"a": "$os.system('ls')"})})
    with pytest.raises(DataError, match="not from this collection and not trusted"):
        install("net", str(registry), tmp_path / "to", agree=refuse)
    assert "expression: $os.system('ls')   [configs/train.json]" in asked
    assert not (tmp_path / "to").exists()


def test_nothing_is_trusted_by_default(registry, tmp_path):
    with pytest.raises(DataError, match="not trusted"):
        install("net", str(registry), tmp_path / "to")


def test_this_collection_is_known_by_its_bytes(archive, bundle, tmp_path, monkeypatch):
    contents = read_archive(archive)
    assert is_of_this_collection(contents, sha256_of(archive), bundle.parent)
    assert not is_of_this_collection(contents, "0" * 64, bundle.parent)
    assert not is_of_this_collection(contents, sha256_of(archive), tmp_path)
    monkeypatch.setattr(module, "COLLECTION", bundle.parent)
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / archive.name).write_bytes(archive.read_bytes())
    write_registry(tmp_path / "registry")
    assert install("deepatlas", str(tmp_path / "registry"), tmp_path / "to").is_dir()  # nobody is asked


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_interrupted_between_the_two_moves(registry, tmp_path, tree, monkeypatch, error):
    to = tmp_path / "to"
    add(registry, to, "0.9.0")
    before, move = tree(to), os.replace

    def failing(source, destination):
        if Path(destination) == to / "net" and ".installing-" in str(source):
            raise error
        move(source, destination)

    monkeypatch.setattr(module.os, "replace", failing)
    with pytest.raises(DataError if isinstance(error, OSError) else KeyboardInterrupt):
        add(registry, to)
    monkeypatch.undo()
    # a killed process cannot tidy up; the next installation does
    with pytest.raises(DataError, match="no version 7"):
        add(registry, to, "7.0.0")
    assert tree(to) == before


@pytest.mark.parametrize("before", [None, "0.9.0"])
def test_killed_before_the_record_is_in_place(registry, tmp_path, monkeypatch, before):
    to = tmp_path / "to"
    if before:
        add(registry, to, before)
    move = os.replace

    def failing(source, destination):
        if Path(destination) == to / ".net.json" and Path(source).name == ".net.json.new":
            raise KeyboardInterrupt
        move(source, destination)

    monkeypatch.setattr(module.os, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        add(registry, to)
    monkeypatch.undo()
    add(registry, to)
    assert installed(to) == "0.10.0"
    assert sorted(path.name for path in to.iterdir()) == [".net.json", "net"]


def test_what_a_killed_installation_was_unpacking_goes_after_a_day(registry, tmp_path):
    old, young = tmp_path / "to/.installing-old", tmp_path / "to/.installing-young"
    for folder in (old, young):
        (folder / "net").mkdir(parents=True)
    os.utime(old, (0, 0))
    add(registry, tmp_path / "to")
    assert not old.exists()
    assert young.is_dir()


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("nothing", "registry", "no bundle 'nothing'; it has net"),
        ("net_v1", "registry", "bundle name"),
        ("net", "missing", "missing: no such folder"),
        ("net", "ftp://host", "only http, https, file"),
    ],
)
def test_arguments(registry, tmp_path, monkeypatch, name, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        install(name, source, tmp_path / "to")
    assert not (tmp_path / "to").exists()
