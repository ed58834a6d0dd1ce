"""Checkpoints: safetensors and JSON, written whole or not at all.

A folder ``checkpoints/`` holds one folder ``it00001000`` per checkpoint, each written under another name and renamed once it is
on the disk, and ``state.json``, replaced atomically, that says which one is the last and which the best. Killed at any moment,
a run finds its last whole checkpoint.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from sst._files import new_folder, read_json, remove_leftovers, write_json
from sst._settings import logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn


IMPLEMENTATION = {"fused", "foreach", "capturable"}  # how an optimiser computes: its own affair, not the checkpoint's


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """A module's state as contiguous CPU tensors that share no memory."""
    return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in module.state_dict().items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors, and the rest as JSON values."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {"param_groups": state["param_groups"], "state": {}}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{index}/{name}"] = value.detach().to("cpu", copy=True).contiguous()
            else:
                rest["state"].setdefault(str(index), {})[name] = value
    return tensors, rest


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: dict[str, Any]) -> None:
    """The inverse of :func:`optimizer_tensors`."""
    state: dict[int, dict[str, Any]] = {int(i): dict(entries) for i, entries in rest["state"].items()}
    for key, value in tensors.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    for mine, theirs in zip(groups, rest["param_groups"], strict=True):
        for name, value in theirs.items():
            if name not in IMPLEMENTATION:
                mine[name] = tuple(value) if isinstance(mine.get(name), tuple) else value
    optimizer.load_state_dict({"state": state, "param_groups": groups})


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkpoints"

    @property
    def state(self) -> dict[str, Any]:
        """``{"last": name, "best": name, "best_distance": x}``, empty before the first checkpoint."""
        path = self.folder / "state.json"
        return read_json(path) if path.exists() else {}

    def path(self, which: str = "last") -> Path | None:
        """Folder of the last or the best checkpoint."""
        name = self.state.get(which)
        return self.folder / name if name else None

    def rest(self, which: str = "last") -> dict[str, Any]:
        """What a checkpoint holds besides tensors; empty if there is none."""
        path = self.path(which)
        return read_json(path / "rest.json") if path else {}

    def save(
        self,
        iteration: int,
        modules: Mapping[str, nn.Module],
        averages: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        rest: dict[str, Any],
        *,
        distance: float | None = None,
        keep: bool = False,
    ) -> Path:
        """Write a checkpoint; it becomes the last, and the best if ``distance`` is the smallest so far."""
        name = f"it{iteration:08d}"
        final = self.folder / name
        rest = dict(rest, iteration=iteration, optimizers={}, keep=keep)
        with new_folder(final, overwrite=True) as draft:
            for key, module in modules.items():
                save_file(tensors_of(module), draft / f"{key}.safetensors")
            for key, module in averages.items():
                save_file(tensors_of(module), draft / f"{key}.ema.safetensors")
            for key, optimizer in optimizers.items():
                tensors, rest["optimizers"][key] = optimizer_tensors(optimizer)
                save_file(tensors, draft / f"{key}.optimizer.safetensors")
            (draft / "rest.json").write_text(json.dumps(rest, indent=2))
        state = self.state
        state["last"] = name
        if distance is not None and not distance >= state.get("best_distance", float("inf")):
            state["best"], state["best_distance"] = name, distance
        write_json(self.folder / "state.json", state)
        self._tidy(state)
        logger.debug("checkpoint %s", final)
        return final

    def _tidy(self, state: dict[str, Any]) -> None:
        for path in self.folder.glob("it*"):
            if path.name in {state.get("last"), state.get("best")}:
                continue
            rest = path / "rest.json"
            if not (rest.exists() and read_json(rest).get("keep")):
                shutil.rmtree(path, ignore_errors=True)
        remove_leftovers(self.folder)

    def load(
        self,
        which: str,
        modules: Mapping[str, nn.Module],
        averages: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
    ) -> dict[str, Any] | None:
        """Restore a checkpoint in place; returns what else it holds, or ``None`` if there is none."""
        path = self.path(which)
        if path is None:
            return None
        for key, module in modules.items():
            module.load_state_dict(load_file(path / f"{key}.safetensors"))
        for key, module in averages.items():
            module.load_state_dict(load_file(path / f"{key}.ema.safetensors"))
        rest = read_json(path / "rest.json")
        for key, optimizer in optimizers.items():
            load_optimizer(optimizer, load_file(path / f"{key}.optimizer.safetensors"), rest["optimizers"][key])
        return rest


def load_average(checkpoints: Checkpoints, which: str, key: str, module: nn.Module) -> bool:
    """Read one running average of the last or the best checkpoint into ``module``; false if there is none."""
    path = checkpoints.path(which)
    if path is None:
        return False
    module.load_state_dict(load_file(path / f"{key}.ema.safetensors"))
    return True
