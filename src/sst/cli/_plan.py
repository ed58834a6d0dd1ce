"""What a command would do and need, said by ``--dry-run``: counted, or measured on a few of the object's own cells."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

TRIED = 64  # cells that rates are measured on
_LEAST = 1.0  # seconds of a measurement


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """Register ``--dry-run``."""
    parser.add_argument("--dry-run", action="store_true", help="say what it would do and need, and do nothing")


def say(**lines: str) -> int:
    """Print the lines of a plan, each with its name; the exit status."""
    for name, text in lines.items():
        sys.stdout.write(f"{name.replace('_', ' ')}: {text}\n")
    return 0


def rate(work: Callable[[], Any], cells: int) -> float:
    """Cells a second of something that is done to so many cells: once to warm up, then for a second at least."""
    work()
    start, times = time.perf_counter(), 0
    while times == 0 or time.perf_counter() - start < _LEAST:
        work()
        times += 1
    return cells * times / (time.perf_counter() - start)


def some_cells(adata: AnnData, rows: np.ndarray, most: int = TRIED) -> AnnData:
    """A few of the rows, in memory, evenly spread."""
    from sst.io import crop_reader
    from sst.tl._measuring import without_slots

    chosen = np.unique(rows[np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)])
    some = without_slots(adata)[chosen].copy()
    some.obsm["crops"] = crop_reader(adata).take(chosen)
    return some


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def span(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 360_000 else f"{seconds / 86400:.0f} days"


def free_disk(path: Path) -> int:
    """Bytes that are free where a path is to be."""
    return shutil.disk_usage(next(p for p in (path.resolve(), *path.resolve().parents) if p.exists())).free


def free(path: Path) -> str:
    """What is free where a path is to be, in words."""
    return f"{size(free_disk(path))} free"


def bytes_of(path: Path) -> int:
    """Of a file, or of all files of a folder."""
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def most_memory() -> int:
    """The most bytes that this process held at once."""
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
