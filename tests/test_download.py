"""Downloads over a connection that breaks, from a server on this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import re
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sst import _download as module
from sst._download import download

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = np.random.default_rng(0).bytes(4_000_000)


class Moody(http.server.BaseHTTPRequestHandler):
    """Serves BODY; ``server.moods`` says how it takes the next requests: a status, or the share after which it hangs up."""

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range"))
        mood = server.moods.pop(0) if server.moods else 1.0
        if isinstance(mood, int):
            self.send_response(mood)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body, start = server.body, 0
        ranged = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range") in (None, server.tag)
        if ranged and same and server.ranges:
            start = int(ranged[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        self.wfile.write(body[start : start + int(mood * (len(body) - start))])
        if mood < 1:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.ThreadingHTTPServer]:
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    httpd.asked, httpd.moods, httpd.body, httpd.tag, httpd.ranges = [], [], BODY, '"one"', True
    httpd.url = f"http://127.0.0.1:{httpd.server_port}/slide.zip"
    threading.Thread(target=functools.partial(httpd.serve_forever, poll_interval=0.01), daemon=True).start()
    monkeypatch.setattr(module, "PAUSE", 0.001)
    yield httpd
    httpd.shutdown()
    httpd.server_close()


def test_goes_on_where_it_was_cut_off(server, tmp_path: Path) -> None:
    server.moods = [0.6, 429, 503, 403, 0.6]
    digest = download(server.url, tmp_path / "slide.zip")
    assert digest == hashlib.sha256(BODY).hexdigest()
    assert (tmp_path / "slide.zip").read_bytes() == BODY
    assert server.asked[0] is None
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) / len(BODY) for asked in server.asked[1:]]
    assert starts == pytest.approx([0.6, 0.6, 0.6, 0.6, 0.84], abs=0.02)
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_the_next_call_goes_on_too(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIES", 2)
    server.moods = [0.6, 500, 500]
    with pytest.raises(ConnectionError, match=r"HTTP 500.* 23\d{5} of 4000000 bytes have arrived and are kept"):
        download(server.url, tmp_path / "slide.zip")
    assert not (tmp_path / "slide.zip").exists()
    download(server.url, tmp_path / "slide.zip")
    assert server.asked[-1].startswith("bytes=23")
    assert (tmp_path / "slide.zip").read_bytes() == BODY


def test_a_call_that_was_ended_after_the_last_byte(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "sha256_of", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            download(server.url, tmp_path / "slide.zip")
    download(server.url, tmp_path / "slide.zip")
    assert len(server.asked) == 1
    assert (tmp_path / "slide.zip").read_bytes() == BODY


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_was_replaced_is_begun_anew(
    server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    monkeypatch.setattr(module, "TRIES", 1)
    server.moods, server.ranges = [0.6, 500], ranges
    with pytest.raises(ConnectionError):
        download(server.url, tmp_path / "slide.zip")
    server.body, server.tag = BODY[::-1], '"two"'
    download(server.url, tmp_path / "slide.zip")
    assert (tmp_path / "slide.zip").read_bytes() == BODY[::-1]


def test_a_range_beyond_the_end_is_begun_anew(server, tmp_path: Path) -> None:
    (tmp_path / ".slide.zip.part").write_bytes(b"x" * 10)
    server.moods, server.tag = [416], ""
    download(server.url, tmp_path / "slide.zip")
    assert server.asked == ["bytes=10-", None]
    assert (tmp_path / "slide.zip").read_bytes() == BODY


def test_another_hash_is_refused_and_removed(server, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sha256.*expected abc"):
        download(server.url, tmp_path / "slide.zip", sha256="abc")
    assert [p for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


def test_what_cannot_be_mended_is_said_at_once(server, tmp_path: Path) -> None:
    server.moods = [404]
    with pytest.raises(ConnectionError, match="404"):
        download(server.url, tmp_path / "slide.zip")
    with pytest.raises(ConnectionError, match="could not be downloaded"):
        download("http://127.0.0.1:9/slide.zip", tmp_path / "slide.zip")
    assert len(server.asked) == 1
