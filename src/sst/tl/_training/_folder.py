"""A model's folder, and the run that fills it: what the three trainings share."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst._settings import settings
from sst.models import Registry, remember
from sst.train import from_dict, to_dict, write_json

if TYPE_CHECKING:
    from anndata import AnnData

    from sst.models import Model

TRAINING = "training"  # folder of checkpoints, metrics and samples, inside the model's


def model_folder(out: str | Path | None, kind: str) -> Path:
    """``out``, or a new folder in :attr:`sst.settings.model_dir`, named by the time.

    Raises
    ------
    ValueError
        Several processes train together: each would name another folder.
    """
    if out is not None:
        return Path(out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        msg = "out=None names a folder by the time, which differs between processes: give out=."
        raise ValueError(msg)
    return settings.model_dir / time.strftime(f"{kind}-%Y%m%d-%H%M%S")


def override(config: Any, **fit: Any) -> Any:
    """The configuration with those settings of its loop that are not ``None``."""
    return config.replace(**{f"fit__{key}": value for key, value in fit.items() if value is not None})


def claim(folder: Path, config: Any, registry: Registry, seed: int) -> None:
    """Note what a folder's run is, or check that it is the same; how long it trains and how it is watched may change.

    Raises
    ------
    ValueError
        The folder holds a run with other settings or other genes.
    """
    mine = _identity(config, registry, seed)
    path = folder / TRAINING / "run.json"
    if path.exists():
        theirs = json.loads(path.read_text())  # perhaps of an earlier version: settings added since had their defaults
        there = from_dict(type(config), theirs["config"]), Registry.from_dict(theirs["registry"]), theirs["seed"]
        differ = [key for key, value in _identity(*there).items() if value != mine[key]]
        if differ:
            msg = (
                f"{folder} holds a run with another {' and '.join(differ)}: choose another out=, or the same settings."
            )
            raise ValueError(msg)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, mine)


def keep(model: Model, adata: AnnData, name: str, folder: Path, *, image_model: bool = True) -> None:
    """Save a trained model (the first process does) and note it in the object."""
    if int(os.environ.get("RANK", "0")) == 0:
        model.save(folder, overwrite=True)
    remember(adata, name, folder, image_model=image_model)


def _identity(config: Any, registry: Registry, seed: int) -> dict[str, Any]:
    values: dict[str, Any] = {"config": to_dict(config), "registry": registry.to_dict(), "seed": seed}
    values["config"]["fit"] = {"batch_size": config.fit.batch_size, "ema_images": config.fit.ema_images}
    del values["registry"]["notes"]
    return json.loads(json.dumps(values))
