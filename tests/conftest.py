"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # read by torch and numpy at import: one thread a worker, the same sums everywhere


def pytest_configure(config: pytest.Config) -> None:
    """A test that is named by its id runs, whatever its marker."""
    if config.option.markexpr == "not slow and not gpu" and any("::" in arg for arg in config.args):
        config.option.markexpr = ""


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of small real bundles (``SST_REALDATA``, or ``shared/realdata`` beside the checkout)."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("SST_REALDATA", root.parent / "shared" / "realdata"))
    if not (folder / "README.md").exists():
        pytest.skip(f"no real bundles in {folder} (SST_REALDATA)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    from sst._settings import settings

    settings.progress = False


@pytest.fixture(autouse=True, scope="session")
def _no_power_cuts() -> Iterator[None]:
    """Nothing here cuts the power, and putting every small file on the disk takes longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
