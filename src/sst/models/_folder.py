"""A model's folder: ``config.json``, ``weights.safetensors``, ``registry.json`` and ``history.csv``, replaced together."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from sst._files import current, new_files, read_json, write_json
from sst._settings import logger

from ._registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

CONFIG, WEIGHTS, REGISTRY, HISTORY = "config.json", "weights.safetensors", "registry.json", "history.csv"


@dataclass(frozen=True)
class ModelFolder:
    """What a folder says of its model; nothing is built and no weight is read for it.

    Attributes
    ----------
    path
        The folder.
    kind, hash
        Kind of model, and the hash of its weights.
    config, registry
        JSON values.
    seal
        Hash of all of these (empty: saved by a version that had none).
    """

    path: Path
    kind: str
    hash: str
    config: dict[str, Any]
    registry: dict[str, Any]
    seal: str = ""

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """Read a folder's description.

        Raises
        ------
        FileNotFoundError
            It is not a model's folder.
        ValueError
            A file is damaged, or was changed since the model was saved.
        """
        path = Path(path)
        missing = [name for name in (CONFIG, WEIGHTS, REGISTRY) if not current(path, name).exists()]
        if missing:
            msg = f"{path} is not a model's folder: {', '.join(missing)} not there."
            raise FileNotFoundError(msg)
        about, registry = read_json(current(path, CONFIG)), read_json(current(path, REGISTRY))
        if not isinstance(about, dict) or {"kind", "hash", "config"} - set(about):
            msg = f"{path / CONFIG} is no model's: it must name kind, hash and config."
            raise ValueError(msg)
        if not isinstance(registry, dict) or not isinstance(about["config"], dict):
            msg = f"{path} is damaged: {REGISTRY} and the config of {CONFIG} must be JSON objects."
            raise ValueError(msg)
        found = cls(path, str(about["kind"]), str(about["hash"]), about["config"], registry, str(about.get("seal", "")))
        if found.seal and found.seal != found.sealed():
            msg = f"{path} is damaged: {CONFIG} or {REGISTRY} is not as it was when the model was saved (genes, channels, sizes)."
            raise ValueError(msg)
        return found

    def sealed(self) -> str:
        """First 16 digits of the SHA-256 of kind, weights' hash, configuration and registry."""
        values = {"kind": self.kind, "hash": self.hash, "config": self.config, "registry": self.registry}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, weights: Mapping[str, Tensor], history: pd.DataFrame) -> None:
        """Save a model: all four files at once, so that a killed process leaves the old model or the new one."""
        about = {"kind": self.kind, "hash": self.hash, "seal": self.sealed(), "config": self.config}
        with new_files(self.path) as draft:
            save_file(dict(weights), draft / WEIGHTS)
            write_json(draft / REGISTRY, self.registry)
            (draft / HISTORY).write_text(history.to_csv())
            write_json(draft / CONFIG, about)

    def check_shapes(self, expected: Mapping[str, Tensor]) -> None:
        """Compare what the configuration describes with the header of the weights, before anything of that size is made.

        Raises
        ------
        ValueError
            Names or shapes differ; the message names some.
        """
        path = current(self.path, WEIGHTS)
        try:
            with safe_open(path, "pt") as file:
                there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise _damaged(path, error) from error
        wanted = {name: tuple(value.shape) for name, value in expected.items()}
        differ = [name for name in {**wanted, **there} if wanted.get(name) != there.get(name)]
        if differ:
            some = "; ".join(f"{n}: {there.get(n, 'not there')}, described {wanted.get(n, 'not')}" for n in differ[:3])
            msg = f"{path} does not hold the weights that {CONFIG} describes: {len(differ)} differ ({some})."
            raise ValueError(msg)

    def weights(self) -> dict[str, Tensor]:
        """All weights by name.

        Raises
        ------
        ValueError
            They are damaged, or not those that the configuration names.
        """
        path = current(self.path, WEIGHTS)
        try:
            weights = load_file(path)
        except SafetensorError as error:
            raise _damaged(path, error) from error
        found = weights_hash(weights)
        if found != self.hash:
            msg = f"{path} has the hash {found}, but {CONFIG} names {self.hash}: the folder is damaged."
            raise ValueError(msg)
        if not self.seal:
            logger.info(
                "%s was saved by an earlier version: its hash covers the weights alone. save(overwrite=True) covers %s and %s too.",
                *(self.path, CONFIG, REGISTRY),
            )
        return weights

    def history(self) -> pd.DataFrame:
        """Metrics by iteration, empty if there are none."""
        path = current(self.path, HISTORY)
        if not path.exists() or len(path.read_text().strip()) <= 2:
            return pd.DataFrame()
        return pd.read_csv(path, index_col=0)

    def described(self) -> Registry:
        """The registry.

        Raises
        ------
        ValueError
            It is of a later version, or not a registry.
        """
        try:
            return Registry.from_dict(self.registry)
        except TypeError as error:
            msg = f"{self.path / REGISTRY} is no registry of a model: {error}."
            raise ValueError(msg) from error


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """First 16 digits of the SHA-256 of names, shapes, types and values."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged: {path.stat().st_size} bytes that are no safetensors file ({error}).")
