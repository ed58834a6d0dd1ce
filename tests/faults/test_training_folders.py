"""One folder, two trainings; kills while a finished run is made longer; leftovers of killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from factories import paired_cells
from killing import every_kill
from tiny_training import TINY, cells, task

import sst
from sst.models import load
from sst.train import Checkpoints, fit

CPU = torch.device("cpu")
SHORT = TINY.replace(fit__iterations=2, loss__r1_weight=0.0, loss__path_weight=0.0)
SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background begin with it ignored
sys.path[:0] = {paths!r}
import sst
from factories import paired_cells
from tiny_training import TINY
sst.settings.progress = False
config = TINY.replace(fit__iterations=10**6, fit__checkpoint_every=2, loss__taper=0.0)
print("there", flush=True)
sst.tl.train_gan(paired_cells(), config=config, out={out!r}, device="cpu", devices={devices})
"""


def start(out: Path, devices: int = 0) -> subprocess.Popen:
    """A training that does not end by itself."""
    here = Path(__file__).parents[1]
    script = SCRIPT.format(paths=[str(here / "shared"), str(here.parent / "src")], out=str(out), devices=devices)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def wait_for(found, seconds=120.0):
    """Until something is there."""
    until = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_second_training_is_told_who_has_the_folder(tmp_path):
    first = start(tmp_path / "gan")
    try:
        wait_for(lambda: Checkpoints(tmp_path / "gan" / "training").path())
        with pytest.raises(BlockingIOError, match=rf"training is being trained by process {first.pid} on .* since 20"):
            sst.tl.train_gan(paired_cells(), config=TINY, out=tmp_path / "gan", device="cpu")
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    config = TINY.replace(fit__iterations=1, loss__taper=0.0)  # the dead hold no folder
    with pytest.raises(ValueError, match="another"):  # and the first run's settings still count
        sst.tl.train_gan(paired_cells(), config=config.replace(data__flip=False), out=tmp_path / "gan", device="cpu")
    assert sst.tl.train_gan(paired_cells(), config=config, out=tmp_path / "gan", device="cpu").hash


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_several_processes_end_with_the_first_and_leave_nothing(tmp_path, how):
    """One signal, whenever it comes; cells that were shared are gone after the next run at the latest."""
    training = tmp_path / "gan" / "training"
    process = start(tmp_path / "gan", devices=2)
    wait_for(lambda: list(training.glob(".shared-*/job.json")))
    process.send_signal(how)
    process.wait(30)
    assert process.returncode == -how
    config = TINY.replace(fit__iterations=1, loss__taper=0.0)
    wait_for(lambda: not _children(training))
    sst.tl.train_gan(paired_cells(), config=config, out=tmp_path / "gan", device="cpu", devices=2)
    assert not list(training.glob(".shared-*"))
    assert not list((tmp_path / "gan").glob(".*"))


def _children(training: Path) -> list[str]:
    """Processes that still read the folder."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [line.parent.name] if str(training).encode() in line.read_bytes() else []
        except OSError:
            continue
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.slow
def test_a_finished_run_that_is_made_longer_always_has_a_model(tmp_path):
    """Killed at any step of it, a model loads, and the same call goes on to the end."""
    torch.set_num_threads(1)
    folder = tmp_path / "gan"
    config = SHORT.replace(fit__checkpoint_every=1)

    def trained(iterations: int) -> str:
        return sst.tl.train_gan(paired_cells(), config=config, out=folder, device="cpu", iterations=iterations).hash

    trained(2)
    kept = tmp_path / "kept"
    folder.rename(kept)
    undisturbed = _copy(kept, folder) or trained(3)
    count = 0
    for step in every_kill(lambda: trained(3), folder, lambda: _copy(kept, folder), stride=3):
        assert load(folder).hash
        count += 1
        if step % 2 == 0:
            assert trained(3) == undisturbed
    assert count > 10


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.slow
def test_killed_at_any_step_of_a_checkpoint(tmp_path):
    """The last whole checkpoint is found, and the run goes on as if nothing had been."""
    torch.set_num_threads(1)
    every = SHORT.replace(fit__iterations=3, fit__checkpoint_every=1).fit

    def run(iterations: int) -> dict[str, torch.Tensor]:
        import dataclasses

        made = task(SHORT)
        fit(made, cells(), dataclasses.replace(every, iterations=iterations), folder=folder, device=CPU, seed=1)
        return {n: v.clone() for n, v in made.modules["generator"].state_dict().items()}

    folder = tmp_path / "whole"
    whole = run(3)
    folder = tmp_path / "kept"
    run(2)
    kept, folder = folder, tmp_path / "run"
    for step in every_kill(lambda: run(3), folder, lambda: _copy(kept, folder)):
        assert Checkpoints(folder).path() is not None
        if step % 3 == 0:
            resumed = run(3)
            assert all(torch.equal(whole[n], resumed[n]) for n in whole)
            assert not list((folder / "checkpoints").glob(".*"))
