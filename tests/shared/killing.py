"""Real kills at every step of what a call does to files: a forked child counts them, and kills itself at one."""

from __future__ import annotations

import mmap
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree", "os.chmod"}


def count_steps(work: Callable[[], object], folder: Path) -> int:
    """Do ``work`` in a child that is not killed; how many operations on files in ``folder`` it took."""
    counter = mmap.mmap(-1, 8)
    assert not killed_at(-1, work, folder, counter)
    return int.from_bytes(counter[:], "little")


def killed_at(step: int, work: Callable[[], object], folder: Path, counter: mmap.mmap | None = None) -> bool:
    """Do ``work`` in a child that gets SIGKILL before its ``step``-th operation on files in ``folder``; false if it ended before that."""
    child = os.fork()
    if child == 0:
        seen = 0
        root = str(folder)

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal seen
            if event in STEPS and any(str(a).startswith(root) for a in arguments if isinstance(a, (str, os.PathLike))):
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 1
                if counter is not None:
                    counter[:] = seen.to_bytes(8, "little")

        try:
            sys.addaudithook(hook)
            work()
        except BaseException:  # noqa: BLE001 - a child must not go on as a second test run
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    assert os.WEXITSTATUS(status) == 0, "the work itself failed"
    return False


def every_kill(
    work: Callable[[], object], folder: Path, prepare: Callable[[], object], stride: int = 1
) -> Iterator[int]:
    """Prepare, then kill the work at its first step, its second (or ``stride`` later), and so on until it ends; yields after each kill."""
    step = 0
    while True:
        prepare()
        if not killed_at(step, work, folder):
            return
        yield step
        step += stride
