"""A disk that is really full: the path is named, what stood stands, and with room again the same call goes on."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from factories import paired_cells, small_gan
from tiny_training import TINY

import sst
from sst.models import load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def disk(tmp_path):
    """A file system of 300 kB in memory, where mounting is allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def fill(place: Path) -> Path:
    """Leave no room."""
    file = place / "full"
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while True:
            out.write(b"x" * 4096)
    return file


def test_the_old_model_stands(disk):
    adata = paired_cells()
    old, new = small_gan(adata), small_gan(adata, seed=1)
    folder = old.save(disk / "gan")
    full = fill(disk)
    with pytest.raises(OSError, match=r"No space left on device: .*/gan"):
        new.save(folder, overwrite=True)
    assert load(folder).hash == old.hash
    full.unlink()
    new.save(folder, overwrite=True)
    assert load(folder).hash == new.hash
    assert not list(folder.glob(".*"))


def test_a_training_goes_on_with_room_again(disk, tmp_path):
    config = TINY.replace(fit__checkpoint_every=1, loss__taper=0.0)

    def trained(out: Path) -> str:
        return sst.tl.train_gan(paired_cells(), config=config, out=out, device="cpu", iterations=3).hash

    (disk / "gan").mkdir()
    full = fill(disk)
    with pytest.raises(OSError, match=r"No space left on device: .*/gan/"):
        trained(disk / "gan")
    full.unlink()
    assert trained(disk / "gan") == trained(tmp_path / "undisturbed")
