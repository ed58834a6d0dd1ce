"""What the command line says when something goes wrong: one line, with the file; no bars in a log."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys

import pytest
from factories import paired_cells, small_gan

from sst._settings import Settings, settings
from sst.cli import _run
from sst.train import TrainingDivergedError


@pytest.fixture(autouse=True)
def _as_before():
    before = settings.progress
    yield
    settings.progress = before


def run(monkeypatch, capsys, error, *options):
    """The exit status and what is said when a subcommand raises."""

    def parser():
        made = argparse.ArgumentParser()
        for flag in ("--quiet", "--traceback", "--progress"):
            made.add_argument(flag, action="store_true")

        def fails(_):
            raise error

        made.set_defaults(func=fails)
        return made, {}

    monkeypatch.setattr(_run, "build_parser", parser)
    status = _run.run(list(options))
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyError("no such gene"), 2, "error: no such gene\n"),
        (TrainingDivergedError("training diverged before iteration 3"), 2, "error: training diverged before iteration 3\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/there/w"), 2, "error: [Errno 28] No space left on device: '/there/w'\n"),
        (MemoryError(), 2, "error: MemoryError: \n"),
        (ZeroDivisionError("division by zero"), 1, "error: ZeroDivisionError: division by zero\n(python -m sst --traceback"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)  # fmt: skip
def test_errors_are_one_line(monkeypatch, capsys, error, status, says):
    found, text = run(monkeypatch, capsys, error)
    assert found == status
    assert text.startswith(says)
    assert "Traceback" not in text


def test_a_traceback_on_demand(monkeypatch, capsys):
    with pytest.raises(KeyError):
        run(monkeypatch, capsys, KeyError("gene"), "--traceback")


def test_damaged_models_are_named(tmp_path, capsys):
    adata = paired_cells()
    adata.write_h5ad(tmp_path / "a.h5ad")
    folder = small_gan(adata).save(tmp_path / "gan")
    (folder / "weights.safetensors").write_bytes(b"cut")
    assert _run.run(["edit", str(tmp_path / "a.h5ad"), "--model", str(folder), "--out", str(tmp_path / "b.h5ad")]) == 2
    assert "gan/weights.safetensors is damaged: 3 bytes" in capsys.readouterr().err


def test_bars_are_drawn_where_somebody_looks(monkeypatch, capsys):
    class Terminal:
        def isatty(self):
            return True

    assert not Settings().progress  # standard error is captured
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert Settings().progress
    monkeypatch.setattr(sys, "stderr", None)
    assert not Settings().progress
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert Settings().progress


@pytest.mark.parametrize(
    ("options", "expected"), [((), False), (("--progress",), True), (("--progress", "--quiet"), False)]
)
def test_bars_on_the_command_line(monkeypatch, capsys, options, expected):
    settings.progress = False
    run(monkeypatch, capsys, KeyError("x"), *options)
    assert settings.progress is expected


def test_a_log_file_holds_no_bars(tmp_path):
    code = "from tqdm.auto import tqdm; from sst import settings; list(tqdm(range(3), disable=not settings.progress))"
    found = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=True, text=True)
    assert found.stderr == ""
