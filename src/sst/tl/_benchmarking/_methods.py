"""Methods of the benchmark, each trained on the same cells in the same time, and what is kept of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sst import _keys
from sst._files import read_mark, write_json
from sst._settings import logger
from sst.models import load
from sst.tl._fit_rival import fit_rival
from sst.tl._measuring import FeatureReader
from sst.tl._train_clip import train_clip
from sst.tl._train_editor import train_editor
from sst.tl._train_gan import train_gan
from sst.tl._train_inversion import train_inversion
from sst.tl._training import TRAINING
from sst.train import CLOCKS, Checkpoints, CLIPConfig, EditorConfig, GANConfig, InversionConfig

from ._record import as_note, code, differences

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from anndata import AnnData

    from sst.models import Model

Configs = dict[str, Any]


@dataclass(frozen=True)
class Limit:
    """Of one training: minutes by a clock (:class:`sst.train.FitConfig`), and iterations (``None``: the preset's)."""

    minutes: float
    iterations: int | None = None
    clock: Literal["wall", "cpu"] = "wall"

    def cut(self, config: Any, share: float = 1) -> Any:
        """A configuration that gets a share of it."""
        changes: dict[str, Any] = {"fit__max_seconds": 60 * self.minutes * share, "fit__clock": self.clock}
        if self.iterations is not None:
            changes["fit__iterations"] = max(1, round(self.iterations * share))
        return config.replace(**changes)


@dataclass(frozen=True)
class RivalConfig:
    """A rival, and the most cells whose images are measured for its regression."""

    kind: str
    n_max: int = 12_000


@dataclass(frozen=True)
class Method:
    """How a method is made.

    Attributes
    ----------
    configs
        ``limit -> its configurations by name``.
    fit
        ``(cells, folder, seed, configurations) -> model``.
    parts
        What the names of other folders that it leaves end with.
    seedless
        Whether one model is enough.
    """

    configs: Callable[[Limit], Configs]
    fit: Callable[[AnnData, Path, int, Configs], Any]
    parts: tuple[str, ...] = ()
    seedless: bool = False


def features_of(adata: AnnData) -> list[str]:
    """What is measured: area, shape and texture of the nucleus, its stain inside it, other stains over the window and around it."""
    plain = FeatureReader(adata)
    rings = [f"{_keys.column_name(c)}_ring_mean" for k, c in enumerate(plain.channels) if k != plain.nucleus]
    return [*plain.features, "nucleus_solidity", "nucleus_grain", *rings]


def _slides(adata: AnnData) -> str | None:
    """The slides' column, where a group has several."""
    several = adata.obs[_keys.SAMPLE].nunique() > adata.obs[_keys.CONDITION].nunique()
    return _keys.SAMPLE if several else None


def _rival(kind: str) -> Method:
    def fit(adata: AnnData, out: Path, seed: int, configs: Configs) -> Any:
        options = {"groupby": _keys.CONDITION, "features": features_of(adata), "n_max": configs["rival"].n_max}
        return fit_rival(adata, kind, seed=seed, out=out, **options)

    return Method(lambda _limit: {"rival": RivalConfig(kind)}, fit, seedless=True)


def _gan(adata: AnnData, out: Path, seed: int, configs: Configs) -> Any:
    return train_gan(adata, config=configs["gan"], batch_key=_slides(adata), out=out, seed=seed)


def _published(adata: AnnData, out: Path, seed: int, configs: Configs) -> Any:
    return train_gan(adata, config=configs["gan"], out=out, seed=seed)


def _published_config(limit: Limit) -> Configs:
    """The published inputs, losses and averages at the demo's sizes: at its own, an iteration takes a core of a CPU 100 times as long."""
    paper, small = GANConfig.preset("paper"), GANConfig.preset("demo")
    sizes: dict[str, tuple[str, ...]] = {
        "generator": ("z_dim", "w_dim", "channel_base", "channel_max", "mapping_layers", "gene_layers", "gene_width"),
        "discriminator": ("channel_base", "channel_max", "embed_dim"),
        "fit": ("checkpoint_every", "evaluate_every", "sample_every"),
    }
    changes = {
        part: dataclasses.replace(getattr(paper, part), **{name: getattr(getattr(small, part), name) for name in names})
        for part, names in sizes.items()
    }
    return {"gan": limit.cut(paper.replace(**changes))}


def _inversion(adata: AnnData, out: Path, seed: int, configs: Configs) -> Any:
    slides = _slides(adata)
    gan = train_gan(adata, config=configs["gan"], batch_key=slides, out=out.with_name(f"{out.name}-gan"), seed=seed)
    clip = train_clip(adata, config=configs["clip"], out=out.with_name(f"{out.name}-clip"), seed=seed)
    return train_inversion(adata, gan=gan, clip=clip, config=configs["inversion"], out=out, seed=seed)


def _inversion_configs(limit: Limit) -> Configs:
    """Half of the limit for the generator, a tenth for the encoder of pairs, the rest for the inversion."""
    timed = dataclasses.replace(limit, iterations=None)
    return {
        "gan": limit.cut(GANConfig.preset("demo"), 0.5),
        "clip": timed.cut(CLIPConfig.preset("demo"), 0.1),
        "inversion": limit.cut(InversionConfig.preset("demo"), 0.4),
    }


def _editor(adata: AnnData, out: Path, seed: int, configs: Configs) -> Any:
    return train_editor(adata, config=configs["editor"], batch_key=_slides(adata), out=out, seed=seed)


METHODS: dict[str, Method] = {
    **{kind: _rival(kind) for kind in ("nearest", "nearest_weighted", "ridge", "lasso", "morph", "morph_lasso")},
    "gan_paper": Method(_published_config, _published),
    "gan": Method(lambda limit: {"gan": limit.cut(GANConfig.preset("demo"))}, _gan),
    "inversion": Method(_inversion_configs, _inversion, parts=("-gan", "-clip")),
    "editor": Method(lambda limit: {"editor": limit.cut(EditorConfig.preset("demo"))}, _editor),
}


@dataclass(frozen=True)
class Place:
    """Where one model of a method lies, and its note, which says what it is made of.

    Attributes
    ----------
    folder
        Of the benchmark's models.
    method, seed
        Which model.
    cells
        Hash of the cells.
    limit
        Of its training.
    """

    folder: Path
    method: str
    seed: int
    cells: str
    limit: Limit

    @property
    def name(self) -> str:
        """Of the model's folder."""
        return f"{self.method}-{self.seed}"

    @property
    def path(self) -> Path:
        """The model's folder."""
        return self.folder / self.name

    def note(self) -> dict[str, Any] | None:
        """What its note says, once the model is there; ``None`` before.

        Raises
        ------
        ValueError
            The model is of other cells or settings; the message says what differs.
        """
        there = read_mark(self._note)
        if there is None:
            if self.path.exists():
                self._refuse("without a note that says what it was trained on")
            return None
        if differ := differences(there["made_of"], self._made_of()):
            self._refuse(f"made otherwise ({'; '.join(differ[:5])}{'; ...' if len(differ) > 5 else ''})")
        return there if there["seconds"] is not None else None

    def make(self, adata: AnnData) -> None:
        """Train it, or go on where a training was cut off, and note what it took."""
        about = {"made_of": as_note(self._made_of()), "code": code()}
        write_json(self._note, about | {"seconds": None})
        clock = CLOCKS[self.limit.clock]
        method, began, earlier = METHODS[self.method], clock(), self._spent()
        model = method.fit(adata, self.path, self.seed, self._made_of()["configs"])
        seconds = clock() - began + earlier
        iterations = None if model.history.empty else int(model.history.index.max())
        write_json(self._note, about | {"seconds": round(seconds, 1), "iterations": iterations, "hash": model.hash})
        logger.info("%s: %.0f s", self.name, seconds)

    def load(self, note: dict[str, Any]) -> Model:
        """The model, once it is there."""
        model = load(self.path)
        if model.hash != note["hash"]:
            self._refuse(f"with the hash {model.hash}, not {note['hash']} as its note says")
        return model

    @property
    def _note(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _made_of(self) -> dict[str, Any]:
        configs = METHODS[self.method].configs(self.limit)
        return {"method": self.method, "seed": self.seed, "cells": self.cells, "configs": configs}

    def _spent(self) -> float:
        """Seconds of trainings that were cut off."""
        folders = [self.folder / f"{self.name}{part}" for part in ("", *METHODS[self.method].parts)]
        return float(sum(Checkpoints(folder / TRAINING).rest().get("seconds", 0) for folder in folders))

    def _refuse(self, why: str) -> None:
        msg = f"{self.path} holds a model {why}. Choose another folder, or remove {self.folder}/{self.name}* to train it anew."
        raise ValueError(msg)
