"""A model's folder, and the run that it belongs to."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from sst._files import read_json, write_json
from sst._settings import settings
from sst.models import Registry
from sst.train import from_dict, to_dict

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
    path = settings.model_dir / time.strftime(f"{kind}-%Y%m%d-%H%M%S")
    return next(p for n in itertools.count(1) if not (p := path if n == 1 else Path(f"{path}-{n}")).exists())


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
        theirs = read_json(path)  # perhaps of an earlier version: settings added since had their defaults
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


def _identity(config: Any, registry: Registry, seed: int) -> dict[str, Any]:
    values: dict[str, Any] = {"config": to_dict(config), "registry": registry.to_dict(), "seed": seed}
    values["config"]["fit"] = {"batch_size": config.fit.batch_size, "ema_images": config.fit.ema_images}
    for later in ("notes", "expression", "version"):  # an earlier version did not know them
        del values["registry"][later]
    return json.loads(json.dumps(values))
