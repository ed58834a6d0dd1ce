"""Transcripts kept on disk: the same rows, with few open files, once whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from sst._files import locked
from sst.io._read_log import ReadLog
from sst.io.cosmx import _transcripts

if TYPE_CHECKING:
    from collections.abc import Iterator

FOVS = 60


def batches(times: int = 1) -> Iterator[pd.DataFrame]:
    rng = np.random.default_rng(0)
    n = FOVS * 10
    rows = pd.DataFrame({
        "fov": rng.integers(1, FOVS + 1, n),
        "x": rng.uniform(0, 100, n),
        "y": rng.uniform(0, 100, n),
        "gene": rng.choice(["a", "b"], n),
        "label": rng.integers(0, 5, n),
    })  # fmt: skip
    for _ in range(times):
        yield from (rows.iloc[i : i + 500] for i in range(0, n, 500))


def read(cache: Path | None, times: int = 1) -> _transcripts.Transcripts:
    return _transcripts.partition(batches(times), ReadLog(), genes=["a", "b"], key="k", cache=cache, file="tx")


def same(one: _transcripts.Transcripts, other: _transcripts.Transcripts) -> None:
    assert one.counts == other.counts
    for fov in one.counts:
        a, b = (t.frame(fov).astype({"gene": str}) for t in (one, other))
        pd.testing.assert_frame_equal(a, b[list(a.columns)])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transcripts, "_IN_MEMORY", 200)


def test_on_disk_equals_in_memory_with_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    if not Path("/proc/self/fd").exists():
        pytest.skip("counts open files by /proc")
    memory = read(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(_transcripts, "_IN_MEMORY", 200)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 30, limits[1]))
    try:
        disk = read(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    same(memory, disk)
    same(memory, read(tmp_path))  # taken from there


@pytest.mark.usefixtures("few")
def test_everything_twice_is_read_once(tmp_path: Path) -> None:
    same(read(tmp_path / "once"), read(tmp_path / "twice", times=2))


@pytest.mark.usefixtures("few")
def test_a_mark_of_no_bytes_is_no_mark_and_a_lock_is_said(tmp_path: Path) -> None:
    whole = read(tmp_path)
    (folder,) = (f for f in tmp_path.iterdir() if f.is_dir())
    assert json.loads((folder / "done.json").read_text())["used"] == FOVS * 10
    (folder / "done.json").write_bytes(b"")
    with locked(folder), pytest.raises(BlockingIOError, match=folder.name):
        _in_a_thread(lambda: read(tmp_path))
    same(whole, read(tmp_path))


def _in_a_thread(call) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        pool.submit(call).result()
