"""One training, in one process and in two."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from safetensors.torch import load_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor

SCRIPT = """
    import os, sys
    sys.path.insert(0, {here!r})
    from {name} import train
    train({folder!r}, {out!r} + os.environ["RANK"])
"""


@pytest.fixture
def by_one_and_two(tmp_path: Path) -> Callable[[ModuleType], list[dict[str, Tensor]]]:
    """What a module's ``train(folder, out)`` writes: by one process, and by each of two that share the batches (gloo)."""

    def run(module: ModuleType) -> list[dict[str, Tensor]]:
        script, out = tmp_path / "run.py", str(tmp_path / "two")
        here = Path(str(module.__file__))
        script.write_text(
            textwrap.dedent(SCRIPT.format(here=str(here.parent), name=here.stem, folder=str(tmp_path / "d"), out=out))
        )
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        module.train(str(tmp_path / "s"), str(tmp_path / "one"))
        return [load_file(path) for path in (tmp_path / "one", out + "0", out + "1")]

    return run
