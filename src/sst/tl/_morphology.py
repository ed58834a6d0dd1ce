"""Shape and intensities of every cell's nucleus, ring and window, real or generated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst import _keys
from sst._arguments import checked
from sst._settings import logger, settings
from sst._validate import check_choice, resolve_subset, resolve_table

from ._measuring import NucleusView, channel_names, get_images, image_hash, iter_images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

_CHUNK = 4096
BACKENDS = ("threshold", "cellpose")


# from pandas 3 on nothing is copied unless it is written to
_NO_COPY: dict[str, Any] = {"copy": False} if int(pd.__version__.split(".")[0]) < 3 else {}


@checked
def morphology(
    adata: AnnData | SpatialData,
    *,
    key: str = _keys.CROPS,
    backend: str = "threshold",
    nucleus_channel: str | int | None = None,
    subset: np.ndarray | Sequence[bool] | str | Mapping[str, Sequence[str]] | None = None,
    ring: float | None = None,
    weights: str | Path | None = None,
    diameter: float | None = None,
    device: str | None = None,
    n_jobs: int | None = None,
    key_added: str | None = None,
    copy: bool = False,
    table_key: str = _keys.TABLE,
) -> AnnData | None:
    """Measure the nucleus at the centre of each crop, the ring around it and the whole window.

    Parameters
    ----------
    adata
        Paired cells.
    key
        Images in ``obsm``: ``"crops"``, ``"generated"``, ``"edited"``, ...
    backend
        ``"threshold"`` (no network, see :func:`sst.metrics.nucleus_features`) or ``"cellpose"`` (the package's network on
        mosaics of crops; the measures are the same, taken inside its masks).
    nucleus_channel
        Name or number of the channel that shows nuclei; ``None``: found by its name (DAPI, Hoechst, ...). In brightfield images
        (``uns["crops"]["brightfield"]``: H&E) nuclei are dark; they are outlined in the density of hematoxylin
        (:func:`sst.metrics.stain_densities`).
    subset
        Cells to measure: boolean mask, query of ``obs``, or ``{key: [categories]}``. The others keep what an earlier call
        measured, else NaN.
    ring
        Width in pixels of the ring around the nucleus; ``None``: 1/12 of the crop's side.
    weights
        For ``"cellpose"``: path of its weights, or ``"download"`` for its built-in ones.
    diameter
        For ``"cellpose"``: diameter of a nucleus in pixels of the crop; ``None``: a third of the crop's side.
    device
        For ``"cellpose"``.
    n_jobs
        Processes of ``"threshold"``; ``None``: one for few crops, else all cores.
    key_added
        First part of the columns' names; ``None``: ``key``.
    copy
        Return a measured copy (of the table).
    table_key
        Table of a SpatialData.

    Returns
    -------
    ``None`` (or the copy). Writes, all float64 with NaN where there is no nucleus,

    ``obs[f"{key}_nucleus_area"]``, ``_nucleus_area_px``, ``_nucleus_eccentricity``, ``_nucleus_solidity``, ``_nucleus_texture``, ``_nucleus_grain``, ``_nucleus_offset_px``
        Area in um^2 where ``uns["crops"]["pixel_size"]`` is known, else in pixels.
    ``obs[f"{key}_{channel}_nucleus_mean"]``, ``_nucleus_total``, ``_ring_mean``, ``_ring_total``, ``_window_mean``, ``_window_total``
        For each channel, in the images' units; "/" in a channel's name is written "-". In brightfield images also for
        ``hematoxylin`` and ``eosin``, in optical density; texture and grain are then hematoxylin's.
    ``obs[f"{key}_nucleus_status"]``
        Category: ``ok``, ``border``, ``empty``, ``no_nucleus``, ``invalid``.
    ``obs[f"{key}_nucleus_ok"]``
        bool: the outline is to be trusted (see :func:`sst.metrics.nucleus_features`; ``False`` where nothing was measured).
    ``uns[f"{key}_morphology"]``
        ``params``, ``counts`` (crops of each status), ``area_unit``, ``columns``.

    Raises
    ------
    KeyError
        No such images or channel.
    ValueError
        An unknown backend, ``"cellpose"`` without weights.
    """
    table = resolve_table(adata, table_key)
    if copy:
        table = table.copy()
    check_choice("backend", backend, BACKENDS)
    images = get_images(table, key)
    channels = channel_names(table)
    if len(channels) != images.shape[1]:
        msg = f"obsm[{key!r}] has {images.shape[1]} channels, uns['crops'] names {len(channels)}: {channels}."
        raise ValueError(msg)
    view = NucleusView.of(table, nucleus_channel)
    rows = np.flatnonzero(resolve_subset(table, subset) & _keys.drawn(table, key))
    if not len(rows):
        msg = f"subset={subset!r}: obsm[{key!r}] has images of none of these cells (obs[{_keys.drawn_column(key)!r}])."
        raise ValueError(msg)
    segment = _segmenter(backend, weights, diameter, device, min(images.shape[2:]))
    prefix = key if key_added is None else key_added
    hashed = image_hash(images)
    before = table.uns.get(f"{prefix}_morphology", {}).get(_keys.PARAMS, {}).get("image_hash", hashed)
    columns = _Columns(table, prefix, keep=before == hashed)
    with tqdm(total=len(rows), desc=f"morphology of {key}", disable=not settings.progress, leave=False) as bar:
        for part, batch in iter_images(images, rows, _CHUNK):
            measured = view.measure(
                batch,
                ring=ring,
                masks=None if segment is None else segment(view(batch)[:, view.nucleus]),
                n_jobs=n_jobs,
                progress=bar.update,
            )
            columns.add(part, measured)
    columns.write()
    counts = columns.counts
    _keys.write_params(
        table,
        f"{prefix}_morphology",
        {
            "key": key,
            "backend": backend,
            "nucleus_channel": view.channels[view.nucleus],
            "ring": ring,
            "weights": None if weights is None else str(weights),
            "diameter": diameter,
            "image_hash": hashed,
        },
        counts=counts,
        area_unit=measured.attrs["area_unit"],
        columns=list(columns.new),
    )
    failed = {k: v for k, v in counts.items() if k not in {"ok", "border"} and v}
    if failed:
        logger.info("morphology of %s: no nucleus in %d of %d crops (%s)", key, sum(failed.values()), len(rows), failed)
    return table if copy else None


class _Columns:
    """Columns of ``obs`` that are filled some rows at a time; the other cells keep theirs, unless these were of other images (``keep``)."""

    def __init__(self, table: AnnData, prefix: str, *, keep: bool) -> None:
        self.table, self.prefix, self.keep = table, prefix, keep
        self.new: dict[str, np.ndarray] = {}
        self.kinds: dict[str, pd.Index] = {}  # of columns of categories, which are kept as codes
        self.counts: dict[str, int] = {}

    def add(self, rows: np.ndarray, measured: pd.DataFrame) -> None:
        """What was measured of these rows."""
        for name, values in measured.items():
            column = f"{self.prefix}_{name}"
            if isinstance(values.dtype, pd.CategoricalDtype):
                self.kinds[column] = values.cat.categories
                for kind, count in values.value_counts(sort=False).items():
                    self.counts[str(kind)] = self.counts.get(str(kind), 0) + int(count)
                values = values.cat.codes
            if column not in self.new:
                self.new[column] = self._before(column, values.dtype)
            self.new[column][rows] = values.to_numpy()

    def _before(self, column: str, dtype: np.dtype) -> np.ndarray:
        there = self.table.obs[column] if column in self.table.obs and (self.keep or dtype.kind == "b") else None
        if column in self.kinds:
            old = np.full(self.table.n_obs, None, object) if there is None else there.astype(object)
            return pd.Categorical(old, categories=self.kinds[column]).codes.copy()
        if there is not None:
            return there.to_numpy(dtype).copy()
        return np.full(self.table.n_obs, False if dtype.kind == "b" else np.nan, dtype)

    def write(self) -> None:
        """Put them into the table at once: column by column fragments it."""
        made: dict[str, Any] = {
            name: pd.Categorical.from_codes(values, self.kinds[name]) if name in self.kinds else values
            for name, values in self.new.items()
        }
        added = pd.DataFrame(made, index=self.table.obs_names, copy=False)
        kept = self.table.obs.drop(columns=[c for c in made if c in self.table.obs])
        self.table.obs = pd.concat([kept, added], axis=1, **_NO_COPY)


def _segmenter(
    backend: str, weights: str | Path | None, diameter: float | None, device: str | None, side: int
) -> Callable[[np.ndarray], np.ndarray] | None:
    if backend == "threshold":
        return None
    from ._measuring import CellposeMosaic

    if weights is None:
        msg = "backend='cellpose' needs weights=: a path, or 'download' for the package's built-in model."
        raise ValueError(msg)
    return CellposeMosaic(weights, diameter=side / 3 if diameter is None else diameter, device=device)
