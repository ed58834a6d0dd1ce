"""Cells of a simulated tissue, and what each of them would truly look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

from sst import _keys
from sst._settings import logger
from sst.datasets import MARKER_CHANNEL, NUCLEUS_CHANNEL, TissueConfig, simulate_tissue
from sst.pp import rescale_intensity, train_test_split

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd
    from anndata import AnnData

    from sst.datasets import Tissue

CHANNELS = (MARKER_CHANNEL, NUCLEUS_CHANNEL)
WINDOW, SIDE = 64, 32
CONTROLS = ("programme", "unrelated", "hidden")


@dataclass(frozen=True)
class BenchmarkCells:
    """Paired cells, the gene sets to edit, and the truth.

    Attributes
    ----------
    adata
        Training cells and those held-out cells that are measured; uint8 crops, split.
    tissue
        Where they come from.
    sets
        Gene sets by name (``None``: all genes): each feature's causes, all causes together (``"causal"``), all genes, and controls that cause
        nothing.
    controls
        Names of the latter.
    directions
        Source and target groups.
    """

    adata: AnnData
    tissue: Tissue
    sets: dict[str, list[str] | None]
    controls: tuple[str, ...]
    directions: tuple[tuple[str, str], ...]

    @property
    def test(self) -> np.ndarray:
        """Mask of the held-out cells."""
        return (self.adata.obs[_keys.SPLIT] == "test").to_numpy()

    def truth(self, name: str) -> np.ndarray:
        """The held-out cells (in the object's order) as they truly would be after an edit of a gene set: uint8, m x c x h x w."""
        cells = self.adata[self.test]
        own = np.asarray(cells.obsm[_keys.CROPS])
        if name in self.controls:
            return own
        out = own.copy()
        group = cells.obs[_keys.CONDITION].astype(str).to_numpy()
        for source, target in self.directions:
            mine = group == source
            edited = self.tissue.counterfactual(self.sets[name], source, target)
            raw = edited.render(cells.obs["cell_id"][mine], size=WINDOW, output_size=SIDE, channels=CHANNELS)
            out[mine] = _rescaled(raw, self.adata.uns[_keys.CROPS]["limits"])
        return out


def make_cells(
    preset: str, *, seed: int, n_cells: int | None, n_test: int, sets: Iterable[str] | None
) -> BenchmarkCells:
    """Simulate a tissue, cut its cells, hold out whole fields, and choose what is measured.

    Intensities are scaled by one pair of limits for all slides, found on training cells: so that a counterfactual goes through the same
    scale as the cell that it is of.

    Parameters
    ----------
    preset
        Of :class:`sst.datasets.TissueConfig`.
    seed
        Of the tissue and the split.
    n_cells
        Cells of each slide (``None``: the preset's).
    n_test
        Most held-out cells of each group that are measured.
    sets
        Names of gene sets; ``None``: all.
    """
    changes: dict[str, Any] = {"seed": seed} | ({} if n_cells is None else {"n_cells": n_cells})
    tissue = simulate_tissue(config=TissueConfig.preset(preset, **changes))  # type: ignore[arg-type]
    logger.info("drawing %s", str(tissue).splitlines()[0])
    adata = tissue.to_adata(size=WINDOW, output_size=SIDE, channels=CHANNELS)
    train_test_split(adata, by="fov", seed=seed)
    split = adata.obs[_keys.SPLIT].astype(str).to_numpy()
    rescale_intensity(adata)
    first, last = tissue.config.groups[0], tissue.config.groups[-1]
    group = adata.obs[_keys.CONDITION].astype(str).to_numpy()
    rng = np.random.default_rng(seed)
    keep = (split == "train") & np.isin(group, [first, last])
    for name in (first, last):
        held = np.flatnonzero((split == "test") & (group == name))
        keep[rng.choice(held, min(n_test, len(held)), replace=False)] = True
    adata = adata[keep].copy()
    for column in adata.obs.select_dtypes("category"):
        adata.obs[column] = adata.obs[column].cat.remove_unused_categories()
    every, controls = gene_sets(tissue.genes)
    if sets is not None:
        wanted = list(sets)
        unknown = [s for s in wanted if s not in every]
        if unknown:
            msg = f"sets: {unknown} are not gene sets of this tissue. Possible: {list(every)}."
            raise ValueError(msg)
        every = {name: genes for name, genes in every.items() if name in wanted}
    return BenchmarkCells(
        ad.AnnData(adata.X, obs=adata.obs, var=adata.var[[]], obsm=dict(adata.obsm), uns=dict(adata.uns)),
        tissue,
        every,
        tuple(c for c in controls if c in every),
        ((first, last), (last, first)),
    )


def gene_sets(genes: pd.DataFrame) -> tuple[dict[str, list[str] | None], tuple[str, ...]]:
    """Sets by name, and which of them cause nothing: of the controls, those with the levels of a causal gene where there are any."""
    causal = genes[genes["causes"] != ""]
    sets: dict[str, list[str] | None] = {"all": None, "causal": list(causal.index)}
    sets |= {str(feature): list(part.index) for feature, part in causal.groupby("causes", sort=False)}
    controls = []
    for name in CONTROLS:
        part = genes[genes["control"] == name]
        matched = part[part["matches"] != ""]
        if len(part):
            sets[name] = list((matched if len(matched) else part).index)
            controls.append(name)
    return sets, tuple(controls)


def _rescaled(raw: np.ndarray, limits: Any) -> np.ndarray:
    """What :func:`sst.pp.rescale_intensity` makes of pixels (n x c x h x w) with one pair of limits."""
    low, high = (np.asarray(limits[k], dtype=float)[:, None, None] for k in ("shared_low", "shared_high"))
    return np.rint((np.clip(raw, low, high) - low) / (high - low) * 255).astype(np.uint8)
