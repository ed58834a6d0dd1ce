"""Methods of the benchmark, each trained on the same cells in the same time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sst import _keys
from sst.models import load
from sst.tl._fit_rival import fit_rival
from sst.tl._measuring import FeatureReader
from sst.tl._train_clip import train_clip
from sst.tl._train_editor import train_editor
from sst.tl._train_gan import train_gan
from sst.tl._train_inversion import train_inversion

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

MOST = 12_000
"""Cells whose images are measured for a regression."""

Fit = Callable[["AnnData", "Path", int, "Limit"], Any]


@dataclass(frozen=True)
class Limit:
    """Of one training: minutes, and iterations (``None``: the preset's)."""

    minutes: float
    iterations: int | None = None

    def part(self, share: float) -> dict[str, Any]:
        """Arguments of a training that gets a share of it."""
        made: dict[str, Any] = {"max_seconds": 60 * self.minutes * share}
        return made if self.iterations is None else made | {"iterations": max(1, round(self.iterations * share))}


@dataclass(frozen=True)
class Fitted:
    """A trained method: the model, and the seconds that it took."""

    model: Any
    seconds: float


def features_of(adata: AnnData) -> list[str]:
    """What is measured: area, shape and texture of the nucleus, its stain inside it, other stains over the window and around it."""
    plain = FeatureReader(adata)
    rings = [f"{_keys.column_name(c)}_ring_mean" for k, c in enumerate(plain.channels) if k != plain.nucleus]
    return [*plain.features, "nucleus_solidity", "nucleus_grain", *rings]


def _slides(adata: AnnData) -> str | None:
    """The slides' column, where a group has several."""
    several = adata.obs[_keys.SAMPLE].nunique() > adata.obs[_keys.CONDITION].nunique()
    return _keys.SAMPLE if several else None


def _rival(kind: str) -> Fit:
    return lambda adata, out, seed, limit: fit_rival(
        adata, kind, groupby=_keys.CONDITION, features=features_of(adata), n_max=MOST, seed=seed, out=out
    )


def _gan(preset: Any) -> Fit:
    return lambda adata, out, seed, limit: train_gan(
        adata, preset=preset, batch_key=_slides(adata), out=out, seed=seed, **limit.part(1)
    )


def _inversion(adata: AnnData, out: Path, seed: int, limit: Limit) -> Any:
    """Half of the limit for the generator, a tenth for the encoder of pairs, the rest for the inversion."""
    slides = _slides(adata)
    gan = train_gan(
        adata, preset="demo", batch_key=slides, out=out.with_name(f"{out.name}-gan"), seed=seed, **limit.part(0.5)
    )
    clip = train_clip(
        adata, preset="demo", out=out.with_name(f"{out.name}-clip"), seed=seed, max_seconds=6 * limit.minutes
    )
    return train_inversion(adata, gan=gan, clip=clip, preset="demo", out=out, seed=seed, **limit.part(0.4))


METHODS: dict[str, Fit] = {
    "nearest": _rival("nearest"),
    "nearest_weighted": _rival("nearest_weighted"),
    "ridge": _rival("ridge"),
    "morph": _rival("morph"),
    "lasso": _rival("lasso"),
    "morph_lasso": _rival("morph_lasso"),
    "gan": _gan("demo"),
    "gan_paper": _gan("paper"),
    "inversion": _inversion,
    "editor": lambda adata, out, seed, limit: train_editor(
        adata, preset="demo", batch_key=_slides(adata), out=out, seed=seed, **limit.part(1)
    ),
}
"""Name -> how to fit it: ``(cells, folder, seed, limit) -> model``."""


def fit_method(name: str, adata: AnnData, folder: Path, *, seed: int, limit: Limit) -> Fitted:
    """Fit a method, or load what an earlier run left in ``folder``; its time is kept beside it."""
    place, clock = folder / f"{name}-{seed}", folder / f"{name}-{seed}.seconds"
    if clock.exists():
        return Fitted(load(place), float(clock.read_text()))
    began = time.perf_counter()
    model = METHODS[name](adata, place, seed, limit)
    seconds = time.perf_counter() - began
    clock.write_text(f"{seconds:.1f}")
    return Fitted(model, seconds)
