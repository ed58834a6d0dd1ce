"""Training in several processes of this machine: the folder that they share, and the call that each of them makes."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from sst import _keys
from sst._files import naming_full_disk
from sst.io import crop_reader
from sst.train import check_devices, launch, should_launch, to_dict

from ._cells import counts_of
from ._folder import TRAINING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

BLOCK = 1024  # crops written at a time
SHARED = ".shared-"  # prefix of the folders of cells that processes read


@contextmanager
def shared_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside a run's checkpoints, removed at the end; what a killed run left is removed first."""
    place = folder / TRAINING
    for left in place.glob(f"{SHARED}*"):
        shutil.rmtree(left, ignore_errors=True)
    shared = tempfile.mkdtemp(prefix=SHARED, dir=place)
    try:
        yield place / shared
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def write_crops(path: Path, crops: Any, rows: np.ndarray) -> None:
    """Crops of some rows as one ``.npy`` file, block by block (``crops``: array or reader, n x c x h x w uint8)."""
    take = crops.__getitem__ if isinstance(crops, np.ndarray) else crops.take
    with naming_full_disk(path), path.open("wb") as file:  # not through a map: there a full disk would end the process
        shape = (len(rows), *crops.shape[1:])
        header = {"descr": np.dtype(np.uint8).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for a in range(0, len(rows), BLOCK):
            file.write(np.ascontiguousarray(take(rows[a : a + BLOCK]), dtype=np.uint8).tobytes())


def check_processes(config: Any, device: torch.device) -> None:
    """Raise ``ValueError`` if as many processes as are to be started cannot share the batch or the machine's devices."""
    if should_launch(config.fit.devices):
        check_devices(config.fit.devices, config.fit.batch_size, device)


def train_in_processes(
    function: str,
    adata: AnnData,
    config: Any,
    arguments: dict[str, Any],
    *,
    models: dict[str, Any] | None = None,
    layer: str | None,
    folder: Path,
    device: torch.device,
) -> bool:
    """Call ``sst.tl.<function>`` in ``config.fit.devices`` processes, which save the model in ``folder``.

    Each sees the same cells: counts, split, groups and what is known of the crops as h5ad, the crops as a map of one file, so that a page of them
    is in memory once.

    Parameters
    ----------
    function
        Which training.
    adata
        The paired cells, checked already.
    config
        All settings.
    arguments
        JSON values for its other keywords.
    models
        Models for its keywords; they are saved for the processes to read.
    layer
        Counts (``None``: ``X``).
    folder
        ``out`` of the training, claimed already.
    device
        Kind of device.

    Returns
    -------
    ``False``, and nothing done, if a single process is wanted or a launcher has started several already.

    Raises
    ------
    sst.train.TrainingProcessError
        A process failed; the message has its error.
    """
    if not should_launch(config.fit.devices):
        return False
    counts = counts_of(adata, layer)
    layers = {_keys.SEGMENTED: adata.layers[_keys.SEGMENTED]} if arguments.get("inputs") else {}
    cells = AnnData(
        counts if layer is None else None,
        layers=layers | ({} if layer is None else {layer: counts}),
        obs=adata.obs[
            [c for c in (_keys.SPLIT, arguments.get("groupby"), arguments.get("batch_key")) if c in adata.obs]
        ].copy(),
        var=pd.DataFrame(index=adata.var_names),
        uns={_keys.CROPS: adata.uns[_keys.CROPS]},
    )
    with shared_folder(folder) as shared:
        write_crops(shared / "crops.npy", crop_reader(adata), np.arange(adata.n_obs))
        cells.write_h5ad(shared / "cells.h5ad")
        for name, model in (models or {}).items():
            model.save(shared / name)
        job = {
            "function": function,
            "config": to_dict(config),
            "arguments": arguments | {"layer": layer},
            "models": sorted(models or {}),
        }
        (shared / "job.json").write_text(json.dumps(job | {"out": str(folder.resolve()), "device": device.type}))
        launch("sst.tl._training._worker", shared, config.fit.devices)
    return True
