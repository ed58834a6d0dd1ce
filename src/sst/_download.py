"""A file from the network, over as many connections as it takes."""

from __future__ import annotations

import hashlib
import os
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ._files import locked, read_mark, write_json
from ._settings import logger, settings

if TYPE_CHECKING:
    from pathlib import Path

    from requests import Response
    from tqdm import tqdm

TRIES = 8  # in a row that bring nothing
PAUSE, LONGEST = 2.0, 300.0  # s, before the second try and at most
TIMEOUT = 60.0  # s without a byte
RETRIED = {403, 408, 425, 429, 500, 502, 503, 504}  # a crowded or forgetful server, not a wrong address
_CHUNK = 1 << 16  # bytes; a connection that breaks loses the last one


def download(url: str, target: Path, *, sha256: str = "") -> str:
    """Download a file, going on where an earlier connection, call or process was cut off.

    What has arrived is kept beside the target as ``.<name>.part`` with a note of which version of the file it is, so that a file
    that was replaced on the server meanwhile is begun anew.

    Parameters
    ----------
    url
        Where it is.
    target
        Where it goes; it gets this name when it is whole.
    sha256
        Its hash (or how it begins), if known.

    Returns
    -------
    Its SHA-256.

    Raises
    ------
    ConnectionError
        The server cannot be reached, refuses, or cuts off again and again; the message says how much has arrived.
    ValueError
        What arrived has another hash; it is removed.
    """
    import requests
    from tqdm import tqdm

    part, note = target.with_name(f".{target.name}.part"), target.with_name(f".{target.name}.part.json")
    with (
        locked(target, "downloaded"),
        tqdm(unit="B", unit_scale=True, unit_divisor=1024, desc=target.name, disable=not settings.progress) as bar,
    ):
        failures, reached = 0, False
        while not _whole(part, note):
            before = _size(part)
            try:
                with _ask(url, part, note) as response:
                    reached = True
                    wait = _seconds(response.headers.get("Retry-After", ""))
                    reason: object = f"HTTP {response.status_code}"
                    if response.status_code == 416:  # the file is shorter than what we have: another one
                        part.unlink()
                    elif response.status_code not in RETRIED:
                        response.raise_for_status()
                        if _receive(response, part, note, bar):
                            break
                        reason = "cut off"
            except requests.HTTPError as error:
                raise ConnectionError(_failed(url, error, part, note)) from error
            except (requests.RequestException, ConnectionError, TimeoutError) as error:
                reason, wait = error, 0.0
                if not reached:
                    raise ConnectionError(_failed(url, error, part, note)) from error
            failures = 0 if _size(part) > before else failures + 1
            if failures >= TRIES:
                raise ConnectionError(_failed(url, reason, part, note))
            pause = max(wait, min(PAUSE * 2**failures, LONGEST))
            logger.info("%s: %s; again in %.0f s, from byte %d", target.name, reason, pause, _size(part))
            time.sleep(pause)
        digest = sha256_of(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        note.unlink(missing_ok=True)
        if not digest.startswith(sha256):
            part.unlink()
            msg = f"the file from {url} has the sha256 {digest}, expected {sha256}: it is damaged or was replaced. It was removed."
            raise ValueError(msg)
        part.replace(target)
    return digest


def sha256_of(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _whole(part: Path, note: Path) -> bool:
    """A call was ended after the last byte."""
    return part.exists() and _size(part) == (read_mark(note) or {}).get("size")


def _ask(url: str, part: Path, note: Path) -> Response:
    """Ask for the rest of the file, if it is still the same file."""
    import requests

    headers = {"Accept-Encoding": "identity"}  # packed on the way, ranges would mean something else
    if have := _size(part):
        headers["Range"] = f"bytes={have}-"
        if version := (read_mark(note) or {}).get("version"):
            headers["If-Range"] = version
    return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)


def _receive(response: Response, part: Path, note: Path, bar: tqdm) -> bool:
    """Write what comes; whether the file is whole now."""
    start, total = _place(response)
    if start != _size(part):  # the server begins at the beginning, or is lost: so do we
        part.unlink(missing_ok=True)
        if start:
            return False
    version = response.headers.get("ETag", "")
    if not version or version.startswith("W/"):  # a weak tag does not promise the same bytes
        version = response.headers.get("Last-Modified", "")
    write_json(note, {"url": response.url, "version": version, "size": total})
    bar.total, bar.n = total, start
    bar.refresh()
    with part.open("ab") as file:
        for chunk in response.iter_content(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    return total is None or _size(part) == total


def _place(response: Response) -> tuple[int, int | None]:
    """Where the body begins in the file, and how large the whole file is."""
    if response.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        return (int(found[1]), None if found[2] == "*" else int(found[2])) if found else (-1, None)
    length = response.headers.get("Content-Length")
    return 0, int(length) if length else None


def _seconds(after: str) -> float:
    """A server's wish for a pause; dates are answered with our own pauses."""
    with suppress(ValueError):
        return min(float(after), LONGEST)
    return 0.0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _failed(url: str, reason: object, part: Path, note: Path) -> str:
    have, about = _size(part), read_mark(note) or {}
    kept: Any = (
        f" {have} of {about.get('size') or '?'} bytes have arrived and are kept: the next call goes on." if have else ""
    )
    return f"{url} could not be downloaded ({reason}).{kept}"
