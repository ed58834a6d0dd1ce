"""What holds of any good counterfactual, measured where no truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import _keys
from sst._arguments import checked
from sst._validate import check_groups, check_key, check_range, resolve_subset, resolve_table
from sst.editing import take_rows
from sst.metrics import psnr, recovered_effect

from ._editing import find_model
from ._fidelity import round_trip
from ._fit_rival import fit_rival
from ._identity import background_psnr, central_disc
from ._measuring import (
    FeatureReader,
    channel_names,
    check_groupby,
    clusters_of,
    feature_rows,
    get_images,
    held_out,
    own_clip,
    read_rows,
    slot_before,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from sst.models import FeatureRegression

MOST = 100.0  # dB that stand for images without any difference


@checked
def counterfactual_axioms(
    adata: AnnData | SpatialData,
    key: str = _keys.EDITED,
    *,
    model: Any = "last",
    regression: FeatureRegression | None = None,
    features: Sequence[str] | None = None,
    groupby: str | None = None,
    clusters: str | Sequence[str] | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    radius: float = 0.5,
    clip: Any = "auto",
    n_candidates: int = 200,
    n_max: int = 1000,
    level: float = 0.95,
    n_resamples: int = 500,
    seed: int = 0,
    key_added: str = "counterfactual_axioms",
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Measure of an edit's images what must hold of a counterfactual, truth known or not.

    *Composition*: an edit of nothing gives the cell. *Effectiveness*: features change as a regression on real cells expects of the edited
    expression. *Minimality*: the surroundings of the cell stay. *Reversibility*: edited back, a cell is what it was. *Round trip*: among other
    cells' edited expression, an edited image is nearest to its own. A model may have all of them and be wrong; one that lacks them is.

    Parameters
    ----------
    adata
        After :func:`sst.tl.edit` with an image model.
    key
        Name of the edit.
    model
        The model of the edit: ``"last"``, a name, a folder or a model.
    regression
        What to expect (:func:`sst.tl.fit_rival`, ``kind="ridge"``); ``None``: fitted on the training cells.
    features
        Columns of :func:`sst.metrics.nucleus_features`; ``None``: as :func:`sst.tl.counterfactual_error`.
    groupby
        Column of the groups; ``None``: the edit's.
    clusters
        Columns of ``obs`` that together name a cell's field, over which intervals are made; ``None``: as :func:`sst.tl.counterfactual_error`.
    subset
        Cells to take, of those whose expression the edit changes; ``None``: held-out ones.
    radius
        Of the disc at the crop's centre that is the cell, as a share of half the side.
    clip
        A CLIP for the round trip, ``"auto"`` (the one trained on this object, if any), or ``None``: no round trip.
    n_candidates
        Cells among which a match is looked for.
    n_max
        Most cells of each group.
    level, n_resamples
        Of the intervals.
    seed
        Of the choice of cells and of the bootstrap.
    key_added
        Name of the slot in ``uns``.
    copy
        Return a measured copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes ``uns[key_added]``: ``params``, and ``table``, a DataFrame of ``axiom``, ``source`` (group), ``measure``, ``on``
    (a feature, a channel, or nothing), ``value`` (mean over cells) with ``low``, ``high`` over fields, and ``n``:

    ``composition``
        ``psnr`` of the image before the edit (of the cell's own expression) to its crop, dB, at most 100 (no difference); ``identical``, the share
        of cells without any.
    ``effectiveness``
        On each feature ``share``, the mean change / the mean change that the regression expects, and ``r``, the correlation of both over cells. Noise in
        counts damps a regression: shares over 1 are not too large by themselves.
    ``minimality``
        ``background_psnr``, before against after outside the disc, dB; on each channel ``outside``, mean absolute change there / inside the disc.
    ``reversibility``
        ``psnr`` of the image edited back to the one before, dB; not for models that draw from expression alone, where it holds by itself.
    ``round trip``
        As in :func:`sst.tl.fidelity`: ``prefers_edited``, ``median_rank``.

    Raises
    ------
    KeyError
        No such edit, slot or group; there is no model.
    ValueError
        No cell is edited; the images before an edit were overwritten by another model's.

    References
    ----------
    Monteiro et al., *Measuring axiomatic soundness of counterfactual image models* (2023).
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    check_range("n_max", n_max, low=3)
    check_range("radius", radius, low=0, high=1.4)
    found = find_model(table, model)
    if found is None:
        msg = f"model={model!r}: there is no image model. Pass the model of the edit, or its folder."
        raise KeyError(msg)
    get_images(table, key)
    params = table.uns.get(key, {}).get(_keys.PARAMS, {})
    groupby = check_groupby(table, groupby or params.get("groupby"))
    layer = str(params["layer"]) if params.get("layer") else None
    rows = _edited_rows(table, key, layer, groupby, subset, n_max, seed)
    expect: Any = regression or fit_rival(table, "ridge", groupby=groupby, features=features, layer=layer, seed=seed)
    read = FeatureReader(table, expect.config.features)
    fields = clusters_of(table, clusters)
    options: dict[str, Any] = {"level": level, "n_resamples": n_resamples, "seed": seed}
    before_slot = slot_before(table, key)
    out: list[dict[str, Any]] = []
    for source, own in rows.items():
        part = table[own]
        real, before, after = (read_rows(table, slot, own) for slot in (_keys.CROPS, before_slot, key))
        here = _Rows(source, fields[own], options)
        here.mean("composition", "psnr", psnr(before, real))
        here.mean("composition", "identical", (before == real).all(axis=(1, 2, 3)))
        measured = read(before)
        expected = expect.predict(part, layer=key) - expect.predict(part, layer=layer)
        here.effects(measured, expected.set_axis(measured.index), read(after) - measured)
        here.mean("minimality", "background_psnr", background_psnr(before, after, radius=radius))
        for channel, share in zip(channel_names(table), _outside(before, after, radius), strict=True):
            here.mean("minimality", "outside", share, on=channel)
        back = _edited_back(found, part, after, key=key, layer=layer)
        if back is not None:
            here.mean("reversibility", "psnr", psnr(back, before))
        out += here.rows
    judge = own_clip(table) if isinstance(clip, str) and clip == "auto" else clip
    if judge is not None:
        every, rng = np.sort(np.concatenate(list(rows.values()))), np.random.default_rng(seed)
        turned = round_trip(table, judge, key, layer, every, n_candidates, rng).set_index("key").loc[key]
        out += [
            {
                "axiom": "round trip",
                "source": "all",
                "measure": m,
                "on": "",
                "value": float(turned[m]),
                "n": int(turned["n"]),
            }
            for m in ("prefers_edited", "median_rank")
        ]
    noted = {
        "key": key,
        "groupby": groupby,
        "radius": radius,
        "features": list(read.features),
        "seed": seed,
        "level": level,
    }
    _keys.write_params(
        table,
        key_added,
        noted | {"model_hash": str(found.hash), "n": {g: len(r) for g, r in rows.items()}},
        table=pd.DataFrame(out),
    )
    return table if copy else None


class _Rows:
    """Rows of the table for one group."""

    def __init__(self, source: str, clusters: np.ndarray, options: dict[str, Any]) -> None:
        self.source, self.clusters, self.options = source, clusters, options
        self.rows: list[dict[str, Any]] = []

    def _add(self, axiom: str, measure: str, on: str, value: float, low: float, high: float, n: int) -> None:
        row = {"axiom": axiom, "source": self.source, "measure": measure, "on": on}
        self.rows.append(row | {"value": value, "low": low, "high": high, "n": n})

    def mean(self, axiom: str, measure: str, values: np.ndarray, on: str = "") -> None:
        """Mean over cells, with an interval over fields."""
        values = np.minimum(np.asarray(values, dtype=float), MOST)
        found = recovered_effect(values, np.ones(len(values)), self.clusters, **self.options)
        self._add(axiom, measure, on, found.change, found.change_low, found.change_high, found.n)

    def effects(self, before: pd.DataFrame, expected: pd.DataFrame, change: pd.DataFrame) -> None:
        """Share and correlation of the change of each feature with the expected one."""
        gap = pd.Series(np.nan, index=before.columns)
        for row in feature_rows(before, before + expected, [change], self.clusters, gap, **self.options):
            for measure in ("share", "r"):
                self._add(
                    "effectiveness", measure, row["feature"], row[measure], row[f"{measure}_low"], row[f"{measure}_high"], row["n"]
                )  # fmt: skip


def _edited_rows(
    table: AnnData, key: str, layer: str | None, groupby: str, subset: Any, n_max: int, seed: int
) -> dict[str, np.ndarray]:
    """Some of the cells that the edit changes, by group."""
    after = check_key(table, "layers", key, name="key")
    own = table.X if layer is None else check_key(table, "layers", layer, name="layer")
    mask = held_out(table) if subset is None else resolve_subset(table, subset)
    labels, rng = table.obs[groupby].astype(str).to_numpy(), np.random.default_rng(seed)
    rows = {}
    for group in check_groups(table, groupby):
        index = rng.permutation(np.flatnonzero(mask & (labels == group)))[: 4 * n_max]
        changed = (take_rows(after, index) != take_rows(own, index).astype(np.float32)).any(axis=1)
        rows[group] = np.sort(index[changed][:n_max])
    if not any(map(len, rows.values())):
        msg = f"key={key!r} changes none of the {int(mask.sum())} cells chosen."
        raise ValueError(msg)
    return {group: index for group, index in rows.items() if len(index)}


def _outside(before: np.ndarray, after: np.ndarray, radius: float) -> np.ndarray:
    """Mean absolute change outside the disc / inside it, c x n; 0 where nothing changes inside."""
    disc = central_disc(before.shape[2:], radius)
    change = np.abs(before.astype(np.int16) - after)
    outside, inside = (change[:, :, m].mean(axis=2).T for m in (~disc, disc))
    return np.divide(outside, inside, out=np.zeros_like(outside), where=inside > 0)


def _edited_back(model: Any, part: AnnData, after: np.ndarray, *, key: str, layer: str | None) -> np.ndarray | None:
    """Edited images under the cells' own expression again; ``None`` for a model that looks at no image."""
    from sst.models import draw_options, starts_from

    if starts_from(model) == "expression":
        return None
    options = draw_options(model, source_layer=key)
    return np.asarray(model.generate(part, layer=layer, images=after, **options))
