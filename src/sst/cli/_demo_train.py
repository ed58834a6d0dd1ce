"""The demo's two trainings, side by side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sst._settings import logger, settings

if TYPE_CHECKING:
    from sst.models import GAN, Editor

    from ._demo_input import DemoInput


def train_both(
    data: DemoInput, *, out: Path, seed: int, seconds: float | None, iterations: int | None
) -> tuple[GAN, Editor]:
    """Train the generator here and the editor in a second process, each with half of the cores.

    Networks this small keep one core busy and gain little from a second, so that on two cores both take the time of one.

    Raises
    ------
    RuntimeError
        The second process failed; the message has the end of what it said.
    """
    import torch

    import sst

    threads = torch.get_num_threads()
    half = max(1, threads // 2)
    with TemporaryDirectory(dir=out, prefix=".cells-") as place:
        cells, log = Path(place) / "cells.h5ad", Path(place) / "log.txt"
        _light(data).write_h5ad(cells)
        with log.open("w") as said:
            command = _command(data, cells, out=out, seed=seed, seconds=seconds, iterations=iterations)
            process = subprocess.Popen(command, stdout=said, stderr=said, env=_environment(half))
            try:
                torch.set_num_threads(half)
                gan = sst.tl.train_gan(
                    data.adata,
                    groupby=data.groupby,
                    preset="demo",
                    out=out / "model",
                    max_seconds=seconds,
                    iterations=iterations,
                    seed=seed,
                )
                logger.info("waiting for the editor ...")
                status = process.wait()
            finally:
                torch.set_num_threads(threads)
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if status:
            msg = f"the editor's training failed:\n{log.read_text()[-4000:]}"
            raise RuntimeError(msg)
    sst.models.remember(data.adata, "editor", out / "editor")
    editor: Any = sst.models.load(out / "editor")
    return gan, editor


def unfinished(gan: GAN, editor: Editor, iterations: int | None) -> dict[str, dict[str, int]]:
    """Trainings that time cut short: ``{"gan" | "editor": {"steps", "of"}}``."""
    found = {}
    for name, model in (("gan", gan), ("editor", editor)):
        steps, wanted = int(model.history.index.max()), iterations or int(model.config.fit.iterations)
        if steps < wanted:
            found[name] = {"steps": steps, "of": wanted}
    return found


def _light(data: DemoInput) -> Any:
    """What a training reads of the object."""
    from anndata import AnnData

    adata = data.adata
    return AnnData(
        adata.X,
        obs=adata.obs[[data.groupby, "split"]],
        var=adata.var[[]],
        uns={"crops": adata.uns["crops"]},
        obsm={"crops": adata.obsm["crops"]},
    )


def _command(
    data: DemoInput, cells: Path, *, out: Path, seed: int, seconds: float | None, iterations: int | None
) -> list[str]:
    command = [sys.executable, "-m", "sst", "--quiet", "train", "editor", str(cells), "--out", str(out / "editor")]
    command += ["--preset", "demo", "--groupby", data.groupby, "--seed", str(seed)]
    for name, value in (("max_seconds", seconds), ("iterations", iterations)):
        if value is not None:
            command += ["--set", f"fit.{name}={value}"]
    return [*command, "--device", str(settings.torch_device())]


def _environment(threads: int) -> dict[str, str]:
    count = str(threads)
    return dict(os.environ, OMP_NUM_THREADS=count, MKL_NUM_THREADS=count)
