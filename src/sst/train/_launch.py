"""Several training processes from one that no launcher started (a notebook, a script without ``torchrun``).

The processes are fresh interpreters, not forks (a GPU in use survives no fork) and not ``multiprocessing`` children (those import the
user's script again, which then needs a guard). They find each other as under ``torchrun``: by the same environment variables, through a
store that the starting process keeps.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sst._files import read_json, write_json
from sst._settings import settings

from ._watch import TrainingDivergedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PARENT = "SST_PARENT"  # environment variable of the processes started here: the process that started them
GRACE = 10.0  # seconds that a process has to end when told to
_BOOT = (  # last on the path: where this package lies, for a caller that found it by a path of its own
    "import sys; sys.path.append(sys.argv[1]); import importlib as i; i.import_module(sys.argv[2]).main(sys.argv[3])"
)


class TrainingProcessError(RuntimeError):
    """One of several training processes failed; the message has its own error."""


def should_launch(devices: int) -> bool:
    """Whether so many processes are wanted and no launcher has started any."""
    return devices > 1 and "WORLD_SIZE" not in os.environ


def is_launched() -> bool:
    """Whether this process is one of those that another's training started, which has the folder to itself for all of them."""
    return os.environ.get(PARENT) == str(os.getppid())


def check_devices(devices: int, batch_size: int, device: torch.device) -> None:
    """Raise ``ValueError`` if so many processes cannot share the batch or the machine's devices."""
    if batch_size % devices:
        msg = f"fit.batch_size={batch_size} cannot be shared by devices={devices} processes: choose a multiple."
        raise ValueError(msg)
    if device.type not in {"cuda", "cpu"}:
        msg = f"devices={devices}, but device {str(device)!r} is there once. Possible: devices=1, or device='cpu'."
        raise ValueError(msg)
    if device.type == "cuda" and devices > torch.cuda.device_count():
        msg = f"devices={devices}, but this machine has {torch.cuda.device_count()} GPU(s)."
        raise ValueError(msg)


def launch(module: str, folder: Path, processes: int) -> None:
    """Run ``module.main(folder)`` in several processes of this machine, and wait for them.

    The first one's output is shown. When one fails the others are ended, and so are all when this process is interrupted or ends.

    Parameters
    ----------
    module
        Its ``main`` is called with ``folder`` as text; wrap what it does in :func:`worker`.
    folder
        Holds what the processes read; their errors are written there.
    processes
        How many.

    Raises
    ------
    TrainingProcessError
        A process failed; the message holds its traceback.
    TrainingDivergedError
        That was the reason.
    """
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    threads = max(1, torch.get_num_threads() // processes)
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "GROUP_RANK": "0",
        "OMP_NUM_THREADS": str(threads),
        PARENT: str(os.getpid()),
    }
    state = {
        "progress": settings.progress,
        "level": logging.getLogger("sst").getEffectiveLevel(),
        "seed": settings.seed,
        "device": settings.device,
    }
    write_json(folder / "settings.json", state)
    root = str(Path(__file__).parents[2])
    started: list[subprocess.Popen] = []
    try:
        for rank in range(processes):
            shown: Any = None if rank == 0 else subprocess.DEVNULL
            with _interrupts_wait():  # one between a process' start and its entry in the list would leave it alone
                started.append(
                    subprocess.Popen(
                        [sys.executable, "-c", _BOOT, root, module, str(folder)],
                        env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                        stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then the workers end too
                        stdout=shown,
                        stderr=shown,
                        start_new_session=True,  # Ctrl-C reaches this process alone
                    )
                )
        codes: list[int | None] = [None]
        while None in codes and not any(codes):
            time.sleep(0.1)
            codes = [process.poll() for process in started]
    finally:
        _end(started)
    failed = [(rank, p.returncode) for rank, p in enumerate(started) if p.returncode]
    if failed:
        raise _error(folder, failed)


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C within counts at the end (in the main thread; no other one is interrupted)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, Any]] = []
    before = signal.signal(signal.SIGINT, lambda *which: came.append(which))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came and callable(before):
            before(*came[0])


def _end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _error(folder: Path, failed: list[tuple[int, int]]) -> Exception:
    """The error of the process that failed first; the others' follow from it."""
    notes = sorted((read_json(path) for path in folder.glob("error-*.json")), key=lambda note: note["time"])
    if not notes:
        rank, code = next(((r, c) for r, c in failed if c != -15), failed[0])
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        reason = " (the system ends processes like this when memory runs out)" if code == -9 else ""
        return TrainingProcessError(f"training process {rank} {ended}{reason}.")
    first = notes[0]
    if first["type"] == TrainingDivergedError.__name__:
        return TrainingDivergedError(first["message"])
    msg = f"training process {first['rank']} failed: {first['type']}: {first['message']}\n\n{first['traceback']}"
    return TrainingProcessError(msg)


def worker(folder: Path, work: Callable[[], None]) -> None:
    """What a started process does: take over the settings, watch its parent, work, and note its error."""
    state = read_json(folder / "settings.json")
    settings.progress, settings.seed, settings.device = state["progress"], state["seed"], state["device"]
    logging.basicConfig(format="%(message)s")
    logging.getLogger("sst").setLevel(state["level"])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    rank = int(os.environ["RANK"])
    try:
        work()
    except Exception as error:  # noqa: BLE001 - the parent raises it
        note = {
            "rank": rank,
            "time": time.time(),
            "type": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc(),
        }
        write_json(folder / f"error-{rank}.json", note)
        os._exit(1)  # without goodbye to the others, who may never answer
    if torch.distributed.is_initialized():
        with suppress(Exception):
            torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    os.read(0, 1)  # standard input: nothing is written there, so this returns when the parent is gone
    os._exit(1)
