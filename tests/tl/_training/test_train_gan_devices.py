"""Several processes started by the call itself, as from a notebook."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import SMALL_NETWORKS, paired_cells

from sst.models import GAN
from sst.tl import train_gan
from sst.train import Checkpoints, GANConfig
from sst.train._launch import TrainingProcessError, check_devices, launch, should_launch

TINY = GANConfig.preset("demo").replace(
    **SMALL_NETWORKS, loss__path_weight=1.0, loss__taper=0.0,
    fit__batch_size=8, fit__log_every=3, fit__iterations=6, fit__evaluate_every=3, fit__checkpoint_every=3,
    fit__sample_every=0,
)  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    adata, other = paired_cells(), paired_cells()
    one = train_gan(adata, config=TINY, out=tmp_path / "one", device="cpu", seed=1)
    train_gan(other, config=TINY, out=tmp_path / "two", device="cpu", seed=1, devices=2, iterations=3)
    two = train_gan(other, config=TINY, out=tmp_path / "two", device="cpu", seed=1, devices=2)  # goes on
    assert isinstance(two, GAN)
    assert other.uns["sst"]["last"] == "gan"
    assert two.config.fit.devices == 2
    for (name, a), b in zip(one.generator.state_dict().items(), two.generator.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    for name in ("D/loss", "G/loss", "PL/loss", "distance"):
        np.testing.assert_allclose(two.history[name].dropna(), one.history[name].dropna(), rtol=1e-3)
    assert not list((tmp_path / "two" / "training").glob(".shared-*"))  # nothing is left behind


@pytest.mark.slow
def test_an_error_of_a_process_is_raised_here(tmp_path):
    config = TINY.replace(data__placement="device", fit__iterations=4)
    train_gan(paired_cells(), config=config, out=tmp_path, device="cpu", iterations=2)
    with pytest.raises(
        TrainingProcessError, match=r"(?s)training process . failed: FileExistsError: .*resume=True.*Traceback"
    ):
        train_gan(paired_cells(), config=config, out=tmp_path, device="cpu", devices=2, resume=False)
    assert not list((tmp_path / "training").glob(".shared-*"))


def test_what_cannot_be_shared_is_named():
    with pytest.raises(ValueError, match="batch_size=8 cannot be shared by devices=3"):
        check_devices(3, 8, torch.device("cpu"))
    with pytest.raises(ValueError, match="this machine has"):
        check_devices(64, 64, torch.device("cuda"))
    with pytest.raises(ValueError, match="is there once"):
        check_devices(2, 8, torch.device("mps"))
    with pytest.raises(ValueError, match="devices=3"):
        train_gan(paired_cells(), config=TINY, device="cpu", devices=3)


def test_a_launcher_s_processes_start_no_more(monkeypatch):
    assert should_launch(2)
    assert not should_launch(1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not should_launch(2)


def test_a_killed_process_is_said(tmp_path, monkeypatch):
    (tmp_path / "ends_badly.py").write_text(
        "import os, signal, time\n"
        "def main(folder):\n"
        "    time.sleep(60) if os.environ['RANK'] == '0' else os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(TrainingProcessError, match=r"process 1 was ended by signal 9 \(.*memory"):
        launch("ends_badly", tmp_path, 2)
    assert time.monotonic() - began < 30  # the other one was ended


def test_an_interrupt_while_a_process_starts_ends_that_one_too(tmp_path, monkeypatch):
    """It comes between the system call that starts it and the moment from which it is known here."""
    (tmp_path / "waits_long.py").write_text("import time\ndef main(folder):\n    time.sleep(120)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self.pid)
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background begin with it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            launch("waits_long", tmp_path, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(started) == 1
    _until(lambda: not _alive(started[0]))


INTERRUPTED = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background begin with it ignored
    from pathlib import Path
    from sst.train._launch import launch
    launch("waits", Path(sys.argv[1]), 2)
"""
WAITS = """
    import os, time
    from pathlib import Path
    from sst.train._launch import worker
    def main(folder):
        def work():
            (Path(folder) / f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
            time.sleep(120)
        worker(Path(folder), work)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupting_ends_the_workers(tmp_path, how):
    """Ctrl-C, and even a kill that leaves no time to tell them."""
    (tmp_path / "waits.py").write_text(textwrap.dedent(WAITS))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    script = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), str(tmp_path)]
    process = subprocess.Popen(script, env=environment, stderr=subprocess.DEVNULL)
    notes = [tmp_path / "pid-0", tmp_path / "pid-1"]
    try:
        _until(lambda: all(note.exists() and note.read_text() for note in notes))
        process.send_signal(how)
        process.wait(30)
    finally:
        process.kill()
    _until(lambda: not any(_alive(int(note.read_text())) for note in notes))


def _until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    if Path("/proc/self").exists():
        return state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_checkpoints_know_nothing_of_processes(tmp_path):
    """What several processes wrote, one goes on from, and the other way round."""
    train_gan(paired_cells(), config=TINY, out=tmp_path, device="cpu", iterations=3)
    assert Checkpoints(tmp_path / "training").state["last"] == "it00000003"
    gan = train_gan(paired_cells(), config=TINY.replace(fit__devices=1), out=tmp_path, device="cpu")
    assert gan.history.index.max() == 6
