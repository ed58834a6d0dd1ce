"""Edits of one gene set, against the truth; and the table that sums them up."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from sst import _keys
from sst.editing import RELIABLE
from sst.tl._editing import EditRequest, learn_latent, run_edit, show_latent, shown_layer
from sst.tl._measuring import FeatureReader, clusters_of, feature_rows, image_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sst.editing import LatentExpression
    from sst.models import Model

    from ._cells import BenchmarkCells

    Part = tuple[list[dict[str, Any]], dict[str, np.ndarray]]

NO_EDIT = "no edit"
OPERATOR = "ot"
GAP = 0.2
"""A gap between the groups of less than so many standard deviations is no measure of what a null edit does."""


@dataclass
class Measured:
    """What is measured once and serves every gene set.

    Attributes
    ----------
    cells
        With their truth.
    read
        Features of images.
    real
        Features of the held-out cells' crops.
    before
        Method and seed -> features of what the model draws of the unedited cells (only of models that redraw them).
    latent
        Latent expression by the column that models were adjusted for.
    """

    cells: BenchmarkCells
    read: FeatureReader
    real: pd.DataFrame = field(init=False)
    before: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)
    latent: dict[str, LatentExpression] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.test = self.cells.adata[self.cells.test].copy()
        self.crops = np.asarray(self.test.obsm[_keys.CROPS])
        self.real = self.read(self.crops)
        self.group = self.test.obs[_keys.CONDITION].astype(str).to_numpy()
        self.clusters = clusters_of(self.test, None)

    def change(self, name: str, model: Any, seed: int, part: ad.AnnData, layer: str) -> tuple[pd.DataFrame, Any]:
        """Change of each feature (n x f) under a layer's expression, and the images (``None`` of a model that draws none)."""
        beyond = model.read_beyond if layer != _keys.EDITED else nullcontext
        if not hasattr(model, "generate"):
            with beyond():
                after = model.predict(part, layer=layer)
            return (after - model.predict(part)).reset_index(drop=True).reindex(columns=self.real.columns), None
        options: dict[str, Any] = {"progress": False}
        if model.starts_from == "crop":
            before = self.real
        else:
            if (name, seed) not in self.before:
                self.before[name, seed] = self.read(model.generate(part, **options))
            before = self.before[name, seed]
        with beyond():
            images = model.generate(part, layer=layer, **options)
        return self.read(images) - before, images


class MeasuredSet:
    """The held-out cells with a gene set edited, and how each method's edit of it compares with the truth.

    ``refused``: whether its genes are too noisy for an edit of what counts read, as :func:`sst.tl.edit` would say.

    Parameters
    ----------
    measured
        Cells and what is known of them.
    name
        The gene set.
    show
        How many cells of the first direction are pictured.
    options
        Of :func:`sst.metrics.recovered_effect`.
    """

    def __init__(self, measured: Measured, name: str, *, show: int = 0, **options: Any) -> None:
        cells = measured.cells
        self.measured, self.name, self.options = measured, name, options
        self.truth = cells.truth(name)
        self.true = measured.read(self.truth)
        self.pictured = np.flatnonzero(measured.group == cells.directions[0][0])[:show]
        self.work = ad.AnnData(cells.adata.X, obs=cells.adata.obs, var=cells.adata.var[[]])
        request = EditRequest(genes=cells.sets[name], groupby=_keys.CONDITION, method=OPERATOR, subset=cells.test)
        run_edit(self.work, request, model=None, key=_keys.EDITED)
        self.edit = request.resolve(self.work)
        plain = self._latent("")
        every = dict(zip(self.work.var_names, plain.reliability.tolist(), strict=True))
        self.reliability: dict[str, float] = {g: every[g] for g in cells.sets[name] or ()}
        self.refused = any(value < RELIABLE for value in self.reliability.values())

    def no_edit(self) -> Part:
        """Rows of leaving the cells alone, and pictures: ``"real"``, ``"truth"``, ``"no edit"``."""
        m = self.measured
        pictures = {"real": m.crops[self.pictured], "truth": self.truth[self.pictured], NO_EDIT: m.crops[self.pictured]}
        return self._rows(NO_EDIT, [m.real * 0.0], [m.crops], latent=False), pictures

    def method(self, name: str, models: Sequence[Model], *, latent: Sequence[bool]) -> Part:
        """Rows of a method (a model a seed) by each way of showing the edit, and the first seed's pictures."""
        rows: list[dict[str, Any]] = []
        pictures: dict[str, np.ndarray] = {}
        for shown in latent:
            if shown and (self.refused or models[0].free_of_noise):  # the latter answer to latent expression anyway
                continue
            layer = shown_layer(_keys.EDITED) if shown else _keys.EDITED
            made = [
                self.measured.change(name, model, seed, self._part(model if shown else None), layer)
                for seed, model in enumerate(models)
            ]
            images = [drawn for _, drawn in made if drawn is not None]
            rows += self._rows(name, [change for change, _ in made], images, latent=shown)
            if images:
                pictures[f"{name}, latent" if shown else name] = images[0][self.pictured]
        return rows, pictures

    def _rows(
        self, method: str, changes: list[pd.DataFrame], images: list[np.ndarray], *, latent: bool
    ) -> list[dict[str, Any]]:
        m, rows = self.measured, []
        for source, target in m.cells.directions:
            own = m.group == source
            gap = m.real[m.group == target].mean() - m.real[own].mean()
            picture: dict[str, Any] = {}
            if images:
                picture = image_row(self.truth[own], [x[own] for x in images], m.clusters[own], **self.options)
                picture.pop("n")
            none = image_row(self.truth[own], [m.crops[own]], m.clusters[own], **self.options)
            picture["psnr_no_edit"] = none["psnr"]
            about = {"method": method, "latent": latent, "genes": self.name, "source": source, "target": target}
            found = feature_rows(
                m.real[own], self.true[own], [c[own] for c in changes], m.clusters[own], gap, **self.options
            )
            rows += [about | row | picture for row in found]
        return rows

    def _part(self, model: Any) -> ad.AnnData:
        """The held-out cells, with what ``model`` is shown (``None``: the edited expression alone)."""
        if model is not None:
            latent = self._latent(model.adjusted_for).with_shrinkage(model.shrinkage)
            show_latent(self.work, self.edit, self.work.layers[_keys.EDITED], latent, key=_keys.EDITED)
        part = self.work[self.measured.cells.test].copy()
        part.obsm[_keys.CROPS] = self.measured.crops
        part.uns[_keys.CROPS] = self.measured.cells.adata.uns[_keys.CROPS]
        return part

    def _latent(self, adjusted_for: str) -> LatentExpression:
        known = self.measured.latent
        if adjusted_for not in known:
            known[adjusted_for] = learn_latent(self.work, self.edit, adjusted_for)
        return known[adjusted_for]


def headline(rows: pd.DataFrame) -> dict[str, str]:
    """The feature that the true counterfactual of each gene set moves most, in standard deviations of the feature."""
    plain = rows[rows["method"] == NO_EDIT]
    size = (plain["true_change"].abs() / plain["sd"]).groupby([plain["genes"], plain["feature"]]).mean()
    return {str(genes): str(part.idxmax()[1]) for genes, part in size.groupby(level=0)}


def leaderboard(rows: pd.DataFrame, controls: Sequence[str]) -> pd.DataFrame:
    """One row a method and way of showing the edit.

    Returns
    -------
    For each gene set that causes something the share of the true effect on the feature that it moves most, mean of both directions;
    ``miss``: mean distance of these from 1; ``r``: mean correlation over cells (0 of a set that the method does not move at all); ``psnr``: mean over those sets, ``psnr_no_edit``
    beside; for each control the mean size of the change of those features, as a share of the gap between the groups (features
    whose gap is under 0.2 SD left out); ``seconds`` of training.
    """
    top = headline(rows)
    causal = [g for g in dict.fromkeys(rows["genes"]) if g not in controls]
    features = {top[g] for g in causal}
    out = []
    for (method, latent), part in rows.groupby(["method", "latent"], sort=False):
        own = part[part["feature"] == part["genes"].map(top)]
        shares = own[own["genes"].isin(causal)].groupby("genes", sort=False)["share"].mean()
        row: dict[str, Any] = {"method": method, "latent": bool(latent), **{g: shares.get(g) for g in causal}}
        row["miss"] = float((shares - 1).abs().mean())
        known = own[own["genes"].isin(causal) & own["share"].notna()]
        row["r"] = float(known["r"].fillna(0).mean())
        pictures = part[part["genes"].isin(causal)].drop_duplicates(["genes", "source"])
        row["psnr"] = float(pictures["psnr"].mean()) if "psnr" in pictures else np.nan
        row["psnr_no_edit"] = float(pictures["psnr_no_edit"].mean())
        for name in controls:
            null = part[(part["genes"] == name) & part["feature"].isin(features)]
            null = null[null["gap"].abs() > GAP * null["sd"]]
            row[name] = float(null["of_gap"].abs().mean())
        row["seconds"] = float(part["seconds"].iloc[0])
        out.append(row)
    return pd.DataFrame(out)
