from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import threading
import zipfile

import pytest

import sst
from sst.datasets import REGISTRY, PublicFile, fetch
from sst.datasets import _fetch as module


class Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of small files under the registry's names."""
    folder = tmp_path / "server"
    folder.mkdir()
    for item in REGISTRY.values():
        with zipfile.ZipFile(folder / item.file_name, "w") as archive:
            archive.writestr("outs/experiment.xenium" if "xenium" in item.url.lower() else "a/b.txt", item.about)
            archive.writestr("c.txt" if "Cancer" in item.file_name else "a/c.txt", "more")
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    httpd.asked = []
    httpd.folder = folder
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    base = f"http://127.0.0.1:{httpd.server_port}"
    local = {k: PublicFile(url=f"{base}/{v.file_name}", about=v.about) for k, v in REGISTRY.items()}
    monkeypatch.setattr(module, "REGISTRY", local)
    monkeypatch.setattr(sst.settings, "data_dir", tmp_path / "data")
    monkeypatch.setattr(sst.settings, "progress", False)
    yield httpd
    httpd.shutdown()


def test_registry_is_whole() -> None:
    assert set(REGISTRY) == {
        "cosmx_liver_normal", "cosmx_liver_tumor", "cosmx_liver_expression", "xenium_lung_normal", "xenium_lung_tumor",
    }  # fmt: skip
    for item in REGISTRY.values():
        assert item.url.startswith("https://")
        assert item.file_name.endswith(".zip")


def test_downloads_once_and_records_the_hash(server, tmp_path) -> None:
    path = fetch("cosmx_liver_normal")
    assert path == tmp_path / "data" / "datasets" / "NormalLiverFiles.zip"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = json.loads((path.parent / "sha256.json").read_text())["NormalLiverFiles.zip"]
    assert record["sha256"] == digest
    assert record["size"] == path.stat().st_size
    assert fetch("cosmx_liver_normal", verify=True) == path
    assert server.asked == ["/NormalLiverFiles.zip"]
    elsewhere = fetch("cosmx_liver_normal", data_dir=tmp_path / "other")
    assert elsewhere.parent == tmp_path / "other"
    assert len(server.asked) == 2


def test_a_changed_file_is_noticed(server) -> None:
    path = fetch("cosmx_liver_normal")
    old = path.read_bytes()
    path.write_bytes(old + b"x")
    with pytest.raises(ValueError, match="sha256.*damaged or was replaced"):
        fetch("cosmx_liver_normal")
    # Same size and time: only verify=True looks inside.
    stat_of = json.loads((path.parent / "sha256.json").read_text())[path.name]
    path.write_bytes(old[:-1] + b"!")
    os.utime(path, ns=(stat_of["mtime_ns"], stat_of["mtime_ns"]))
    assert fetch("cosmx_liver_normal") == path
    with pytest.raises(ValueError, match="sha256"):
        fetch("cosmx_liver_normal", verify=True)


def test_another_file_at_the_same_url_is_noticed(server) -> None:
    path = fetch("cosmx_liver_tumor")
    path.unlink()
    with zipfile.ZipFile(server.folder / path.name, "w") as archive:
        archive.writestr("a.txt", "another release")
    with pytest.raises(ValueError, match="sha256"):
        fetch("cosmx_liver_tumor")
    assert not path.exists()


def test_unzips_whole_or_not_at_all(server, tmp_path) -> None:
    folder = fetch("cosmx_liver_normal", unzip=True)
    assert folder == tmp_path / "data" / "datasets" / "NormalLiverFiles" / "a"
    assert (folder / "c.txt").read_text() == "more"
    assert fetch("cosmx_liver_tumor", unzip=True).name == "LiverCancerFiles"  # two things at its top
    zipped = tmp_path / "data" / "datasets" / "NormalLiverFiles.zip"
    zipped.unlink()
    assert fetch("cosmx_liver_normal", unzip=True) == folder  # the zip may go
    (server.folder / "LiverDataReleaseTileDB.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="not a zip file"):
        fetch("cosmx_liver_expression", unzip=True)
    assert [p.name for p in zipped.parent.iterdir() if p.name.startswith(".")] == []


def test_paper_s_data_sets(server) -> None:
    liver = sst.datasets.cosmx_liver()
    assert (liver.normal / "b.txt").is_file()
    assert liver.tumor.name == "LiverCancerFiles"
    assert liver.tiledb.parent.name == "LiverDataReleaseTileDB"
    lung = sst.datasets.xenium_lung()
    assert lung.normal != lung.tumor
    assert len(server.asked) == 5


def test_offline_says_what_to_do(monkeypatch, tmp_path) -> None:
    item = PublicFile(url="http://127.0.0.1:9/x.zip", about="nothing")
    monkeypatch.setattr(module, "REGISTRY", {"x": item})
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:9/x\.zip.*put a copy of it at .*x\.zip"):
        fetch("x", data_dir=tmp_path)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:  # a copy put there is taken, and remembered
        archive.writestr("a.txt", "hello")
    assert fetch("x", data_dir=tmp_path) == tmp_path / "x.zip"
    assert (tmp_path / "sha256.json").is_file()


def test_missing_on_the_server(server, monkeypatch, tmp_path) -> None:
    url = f"http://127.0.0.1:{server.server_port}/gone.zip"
    monkeypatch.setattr(module, "REGISTRY", {"gone": PublicFile(url=url, about="")})
    with pytest.raises(ConnectionError, match="404"):
        fetch("gone", data_dir=tmp_path)


def test_unknown_name() -> None:
    with pytest.raises(KeyError, match=r"'cosmx_liver_norml'.*Did you mean 'cosmx_liver_normal'"):
        fetch("cosmx_liver_norml")
