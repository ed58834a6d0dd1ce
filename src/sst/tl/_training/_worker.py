"""One of several processes that a training starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np

from sst import _keys
from sst.tl._train_clip import train_clip
from sst.tl._train_editor import train_editor
from sst.tl._train_gan import train_gan
from sst.tl._train_inversion import train_inversion
from sst.train import CLIPConfig, EditorConfig, GANConfig, InversionConfig, from_dict, worker

TRAININGS: dict[str, tuple[Any, Any]] = {
    "train_gan": (train_gan, GANConfig),
    "train_clip": (train_clip, CLIPConfig),
    "train_editor": (train_editor, EditorConfig),
    "train_inversion": (train_inversion, InversionConfig),
}


def main(text: str) -> None:
    """Make the call that the folder describes; its first process saves the model."""
    shared = Path(text)

    def work() -> None:
        job = json.loads((shared / "job.json").read_text())
        cells = ad.read_h5ad(shared / "cells.h5ad")
        cells.obsm[_keys.CROPS] = np.load(shared / "crops.npy", mmap_mode="c")
        train, config = TRAININGS[job["function"]]
        models = {name: shared / name for name in job["models"]}
        where = {"out": job["out"], "device": job["device"]}
        train(cells, config=from_dict(config, job["config"]), **where, **models, **job["arguments"])

    worker(shared, work)
