"""Every method on the same simulated cells, against their true counterfactuals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from tqdm.auto import tqdm

from sst._arguments import checked
from sst._settings import logger, settings
from sst._validate import check_choice, check_range

from ._benchmarking import METHODS, Limit, Measured, features_of, fit_method, leaderboard, make_cells, measure_set
from ._measuring import FeatureReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

DEFAULT = ("nearest", "nearest_weighted", "ridge", "lasso", "morph", "morph_lasso", "gan", "editor")
SEEDLESS = ("nearest", "nearest_weighted", "ridge", "morph", "lasso", "morph_lasso")


@dataclass(frozen=True)
class Benchmark:
    """What :func:`benchmark` found.

    Attributes
    ----------
    rows
        One row a method, way of showing the edit, gene set, direction and feature.
    leaderboard
        One row a method and way of showing the edit.
    pictures
        Gene set -> method (``"real"``, ``"truth"``) -> images of a few held-out cells, uint8, n x c x h x w.
    genes
        The gene sets: ``set``, ``gene``, ``reliability``.
    about
        How it was made.
    """

    rows: pd.DataFrame
    leaderboard: pd.DataFrame
    pictures: dict[str, dict[str, np.ndarray]]
    genes: pd.DataFrame
    about: dict[str, object]


@checked
def benchmark(
    preset: str = "realistic",
    methods: Sequence[str] = DEFAULT,
    *,
    seeds: int = 3,
    minutes: float = 5.0,
    iterations: int | None = None,
    out: str | Path = "sst_benchmark",
    latent: Sequence[bool] = (False, True),
    sets: Sequence[str] | None = None,
    n_cells: int | None = None,
    n_test: int = 300,
    show: int = 8,
    tissue_seed: int = 0,
    level: float = 0.95,
    n_resamples: int = 1000,
) -> Benchmark:
    """Train every method on the same cells of a simulated tissue, and measure its edits against the truth, cell by cell.

    Edits are made by optimal transport, fitted on training cells, and drawn for held-out fields of view, in both directions between the
    first and the last group.

    Parameters
    ----------
    preset
        Of the tissue: ``"easy"``, ``"realistic"``, ``"confounded"`` (:class:`sst.datasets.TissueConfig`).
    methods
        ``"nearest"``, ``"nearest_weighted"``, ``"ridge"``, ``"morph"``, ``"lasso"``, ``"morph_lasso"`` (:func:`sst.tl.fit_rival`), ``"gan"`` (preset ``"demo"``), ``"gan_paper"``
        (preset ``"paper"``), ``"inversion"``, ``"editor"``. Not editing is always among them.
    seeds
        Models of each method, with seeds of their own (rivals have one).
    minutes
        Training of each model, at most.
    iterations
        Of each network, at most (``None``: its preset's): on a busy machine a fairer measure than minutes.
    out
        Folder of the trained models; what is there is used again.
    latent
        Ways of showing an edit: as it is, or ``latent`` as in :func:`sst.tl.edit`.
    sets
        Gene sets (``None``: all): ``"all"``, ``"causal"``, one for each causal feature, ``"programme"``, ``"unrelated"``, ``"hidden"``.
    n_cells
        Cells of each slide (``None``: the preset's).
    n_test
        Held-out cells of each group that are measured, at most.
    show
        Cells whose images are kept.
    tissue_seed
        Of the tissue and the split.
    level, n_resamples
        Of the intervals, which are over fields of view and seeds together.

    Returns
    -------
    Tables and pictures; :func:`sst.report.write_leaderboard` makes a page of them.

    Raises
    ------
    ValueError
        A method, preset or gene set is not known; ``out`` holds models of another benchmark.
    """
    for method in methods:
        check_choice("methods", method, list(METHODS))
    check_range("seeds", seeds, low=1)
    check_range("minutes", minutes, low=0, open_low=True)
    cells = make_cells(preset, seed=tissue_seed, n_cells=n_cells, n_test=n_test, sets=sets)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    models, limit = {}, Limit(minutes, iterations)
    for method in methods:
        count = 1 if method in SEEDLESS else seeds
        models[method] = [fit_method(method, cells.adata, folder, seed=s, limit=limit) for s in range(count)]
        logger.info("%s: %s s", method, ", ".join(f"{m.seconds:.0f}" for m in models[method]))
    measured = Measured(cells, FeatureReader(cells.adata, features_of(cells.adata)))
    rows, pictures = [], {}
    for name in tqdm(cells.sets, desc="gene sets", disable=not settings.progress):
        found, pictures[name] = measure_set(
            measured, name, models, latent=latent, show=show, level=level, n_resamples=n_resamples, seed=0
        )
        rows += found
    table = pd.DataFrame(rows)
    genes = pd.DataFrame(
        [
            {"set": name, "gene": gene, "reliability": measured.reliability.get(gene)}
            for name, own in cells.sets.items()
            for gene in own or ()
        ]
    )
    about = {
        "tissue": str(cells.tissue).splitlines()[0],
        "preset": preset,
        "training cells": int((~cells.test).sum()),
        "held-out cells measured": int(cells.test.sum()),
        "fields of view measured": len(set(measured.clusters)),
        "seeds": seeds,
        "training of a model, at most": f"{minutes:g} min"
        + ("" if iterations is None else f", {iterations} iterations"),
        "operator": "ot",
    }
    return Benchmark(table, leaderboard(table, cells.controls), pictures, genes, about)
