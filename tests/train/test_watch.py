"""What a run writes while it trains, on a disk that is full."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sst.train._watch import Watch, read_history


class Full:
    """A file on a full disk: it opens, and nothing can be written."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_names_the_table(tmp_path, monkeypatch):
    watch = Watch(tmp_path, 10, 0, active=True, tensorboard=False, name="gan")
    watch.record(1, {"loss": 1.0})
    monkeypatch.setattr(Path, "open", lambda *_, **__: Full())
    with pytest.raises(OSError, match=r"No space left on device: .*metrics\.csv"):
        watch.record(2, {"loss": 2.0})
    monkeypatch.undo()
    watch.close()
    assert list(read_history(tmp_path).index) == [1]
