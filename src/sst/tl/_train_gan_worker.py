"""One of several processes that :func:`sst.tl.train_gan` starts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from sst.train import GANConfig, from_dict
from sst.train._launch import worker

from ._gan_inputs import GanInputs
from ._train_gan import train_on


def main(text: str) -> None:
    """Train on what the folder holds; the first process saves the model."""
    shared = Path(text)

    def work() -> None:
        job = json.loads((shared / "job.json").read_text())
        model = train_on(
            GanInputs.read(shared),
            from_dict(GANConfig, job["config"]),
            folder=Path(job["folder"]),
            device=torch.device(job["device"]),
            resume=job["resume"],
            seed=job["seed"],
            use=job["use"],
        )
        if os.environ["RANK"] == "0":
            model.save(Path(job["folder"]), overwrite=True)

    worker(shared, work)
