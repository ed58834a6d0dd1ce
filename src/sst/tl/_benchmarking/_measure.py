"""Edits of one gene set by every method, against the truth; and the table that sums them up."""

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
    from collections.abc import Mapping, Sequence

    from sst.editing import LatentExpression

    from ._cells import BenchmarkCells
    from ._methods import Fitted

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
    reliability
        Of each gene, once a set was edited.
    latent
        Latent expression by the column that models were adjusted for.
    """

    cells: BenchmarkCells
    read: FeatureReader
    real: pd.DataFrame = field(init=False)
    before: dict[tuple[str, int], pd.DataFrame] = field(default_factory=dict)
    reliability: dict[str, float] = field(default_factory=dict)
    latent: dict[str, LatentExpression] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.test = self.cells.adata[self.cells.test].copy()
        self.crops = np.asarray(self.test.obsm[_keys.CROPS])
        self.real = self.read(self.crops)
        self.group = self.test.obs[_keys.CONDITION].astype(str).to_numpy()
        self.clusters = clusters_of(self.test, None)

    def change(self, name: str, fitted: Fitted, seed: int, part: ad.AnnData, layer: str) -> tuple[pd.DataFrame, Any]:
        """Change of each feature (n x f) under a layer's expression, and the images (``None`` of a model that draws none)."""
        model = fitted.model
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


def measure_set(
    measured: Measured,
    name: str,
    models: Mapping[str, Sequence[Fitted]],
    *,
    latent: Sequence[bool],
    show: int = 0,
    **options: Any,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Edit a gene set with every model, both ways of showing the edit, and compare with the truth.

    Returns
    -------
    Rows of the table, and images of the first ``show`` cells of the first direction by method (``"real"``, ``"truth"`` among them).
    """
    cells = measured.cells
    edit = _Edited(measured, name)
    truth = cells.truth(name)
    true = measured.read(truth)
    rows: list[dict[str, Any]] = []
    pictured = np.flatnonzero(measured.group == cells.directions[0][0])[:show]
    pictures = {"real": measured.crops[pictured], "truth": truth[pictured]}

    def add(method: str, *, shown: bool, changes: list[pd.DataFrame], images: list[np.ndarray], seconds: float) -> None:
        for source, target in cells.directions:
            own = measured.group == source
            gap = measured.real[measured.group == target].mean() - measured.real[own].mean()
            picture: dict[str, Any] = {}
            if images:
                picture = image_row(truth[own], [x[own] for x in images], measured.clusters[own], **options)
                picture.pop("n")
            none = image_row(truth[own], [measured.crops[own]], measured.clusters[own], **options)
            picture["psnr_no_edit"] = none["psnr"]
            about = {"method": method, "latent": shown, "genes": name, "source": source, "target": target}
            found = feature_rows(
                measured.real[own], true[own], [c[own] for c in changes], measured.clusters[own], gap, **options
            )
            rows.extend(about | row | picture | {"seconds": seconds} for row in found)
        if images:
            pictures[f"{method}, latent" if shown else method] = images[0][pictured]

    add(NO_EDIT, shown=False, changes=[measured.real * 0.0], images=[measured.crops], seconds=0.0)
    for method, fitted in models.items():
        for shown in latent:
            if shown and (
                edit.refused or fitted[0].model.free_of_noise
            ):  # the latter answer to latent expression anyway
                continue
            made = [
                measured.change(method, one, seed, edit.part(one.model if shown else None), edit.layer(latent=shown))
                for seed, one in enumerate(fitted)
            ]
            add(
                method,
                shown=shown,
                changes=[change for change, _ in made],
                images=[images for _, images in made if images is not None],
                seconds=float(np.mean([one.seconds for one in fitted])),
            )
    return rows, pictures


class _Edited:
    """The held-out cells with a gene set edited, and what models are shown of it.

    ``refused``: whether its genes are too noisy for an edit of what counts read, as :func:`sst.tl.edit` would say.
    """

    def __init__(self, measured: Measured, name: str) -> None:
        cells = measured.cells
        self.measured = measured
        self.work = ad.AnnData(cells.adata.X, obs=cells.adata.obs, var=cells.adata.var[[]])
        request = EditRequest(genes=cells.sets[name], groupby=_keys.CONDITION, method=OPERATOR, subset=cells.test)
        run_edit(self.work, request, model=None, key=_keys.EDITED)
        self.edit = request.resolve(self.work)
        plain = self._latent("")
        measured.reliability = dict(zip(self.work.var_names, plain.reliability.tolist(), strict=True))
        self.refused = any(measured.reliability[g] < RELIABLE for g in cells.sets[name] or ())

    def layer(self, *, latent: bool) -> str:
        """Name of the layer that is drawn."""
        return shown_layer(_keys.EDITED) if latent else _keys.EDITED

    def part(self, model: Any) -> ad.AnnData:
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
    ``miss``: mean distance of these from 1; ``r``: mean correlation over cells; ``psnr``: mean over those sets, ``psnr_no_edit``
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
        row["r"] = float(own[own["genes"].isin(causal)]["r"].mean())
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
