"""Put the images of all slides on one 8-bit scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numba
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst._arguments import checked
from sst._keys import CROPS, PARAMS, SPLIT, column_name, is_brightfield, write_params, write_slot
from sst._settings import logger, settings
from sst._validate import check_choice, check_groups, check_key, check_range
from sst.io.store import RowwiseReader, crop_reader, known_reader, register

from ._slide_gains import slide_gains

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from sst.io.store import CropReader

_ALL = "all"
_BLOCK_BYTES = 32 << 20


_LIMITS = {"groupby", "low", "high", "shared_low", "shared_high"}


@checked
def rescale_intensity(
    adata: AnnData,
    groupby: str | None = None,
    *,
    key: str = CROPS,
    low: float = 0.05,
    high: float = 0.95,
    limits: Mapping[str, Any] | None = None,
    fit_on: Literal["train", "all"] = "train",
    batch_key: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Clip every group's images to limits of their own, then scale all by shared limits to 0..255.

    Per group (slide) and channel, ``low_g`` is the ``low`` quantile over the crops of their minimum, ``high_g`` the ``high``
    quantile of their maximum (linear interpolation); the shared limits are ``min_g low_g`` and ``max_g high_g``. A pixel x becomes
    ``round(255 * (clip(x, low_g, high_g) - shared_low) / (shared_high - shared_low))`` (halves to even), so that equal
    intensities of different slides stay equal (Wu & Koelzer 2024). Images are read once, in a stream, and only their
    extremes kept; lazy images stay lazy. The colours of a brightfield image (H&E) share one pair of limits a slide, the lowest and the
    highest of the three, so that white stays white.

    With ``batch_key`` (slides, or donors) each slide's background is taken off, and its signal brought to the mean of the slides of its group: the
    slides of a group become equally bright, and what sets the groups' means apart stays as it is. What is a slide's brightness and what its
    donor's biology cannot be told apart; nor, where each slide is of one group, what is the groups' and what the mean of their slides'.

    Parameters
    ----------
    adata
        Object with images in ``obsm[key]``.
    groupby
        Column of ``obs`` with the slides; all cells are one group if ``None``. With ``batch_key``: the groups whose brightness is kept
        (``None``: none, all slides become equally bright).
    key
        Slot of the images.
    low, high
        Quantiles, 0..1.
    limits
        Limits found before, as they are left in ``uns["crops"]["limits"]``: applied instead of new ones (``groupby`` is then
        taken from them, if not given).
    fit_on
        ``"train"``: limits are found on the training cells alone, if ``obs["split"]`` is there already; ``"all"``: on all cells. A slide
        without training cells is measured by all of its own, and brought to its group's level.
    batch_key
        Column of ``obs`` with the slides, whose limits are then found one by one.
    copy
        Return a changed copy and leave ``adata`` as it is.

    Returns
    -------
    ``None``, or the copy. Writes

    ``obsm[key]``
        ``uint8``, n x c x h x w, dask if it was.
    ``uns[key]["limits"]``
        ``groupby``, ``low`` and ``high`` (group -> one number per channel), ``shared_low``, ``shared_high``, and the quantiles; with
        ``batch_key``, which is then the ``groupby`` of these, ``gain`` (factor on a slide's signal above ``low``) and ``kept`` (the groups' column).

    Raises
    ------
    ValueError
        The images were rescaled before, or were cut with different channels; ``limits`` do not fit; ``batch_key`` with a brightfield image, whose background is white.
    """
    check_range("low", low, low=0, high=1)
    check_range("high", high, low=0, high=1)
    if low >= high:
        msg = f"low={low!r} must be below high={high!r}."
        raise ValueError(msg)
    adata = adata.copy() if copy else adata
    array = check_key(adata, "obsm", key)
    about = dict(adata.uns.get(key, {}))
    if "limits" in about:
        msg = f"obsm[{key!r}] was rescaled before (uns[{key!r}]['limits'] is there)."
        raise ValueError(msg)
    if key == CROPS:
        _check_cut(about)
    if limits is not None and not set(limits) >= _LIMITS:
        msg = f"limits has {sorted(map(str, limits))}: expected what this function writes, with {sorted(_LIMITS)}."
        raise ValueError(msg)
    kept = None if batch_key is None else groupby
    if batch_key is not None:
        check_key(adata, "obs", batch_key, name="batch_key")
        if key == CROPS and is_brightfield(adata):
            msg = f"batch_key={batch_key!r}: a brightfield image has no dark background to take off. Use groupby={batch_key!r}."
            raise ValueError(msg)
        groupby = batch_key
    if limits is not None and groupby is None:
        groupby = str(limits["groupby"]) or None
    groups = [_ALL] if groupby is None else check_groups(adata, groupby)
    if len({column_name(g) for g in groups}) < len(groups):
        msg = f"groups {groups} of obs[{groupby!r}] have names that files cannot tell apart; rename them."
        raise ValueError(msg)
    codes = np.zeros(adata.n_obs, np.int64)
    if groupby is not None:
        codes = np.array([groups.index(str(g)) for g in adata.obs[groupby]], dtype=np.int64)
    reader = crop_reader(array)
    channels = reader.shape[1]
    gains = None
    if limits is None:
        minima, maxima, bad_pixels = _extremes(reader)
        learn = _training_cells(adata, codes, groups, fit_on)
        _check_finite(minima, bad_pixels, np.where(learn, codes, -1), groups, key)
        lows = np.stack([np.nanquantile(minima[learn & (codes == g)], low, axis=0) for g in range(len(groups))])
        highs = np.stack([np.nanquantile(maxima[learn & (codes == g)], high, axis=0) for g in range(len(groups))])
        if key == CROPS and is_brightfield(adata):  # each colour for itself would shift the hue
            lows[:], highs[:] = lows.min(axis=1, keepdims=True), highs.max(axis=1, keepdims=True)
        shared_low, shared_high = lows.min(axis=0), highs.max(axis=0)
        if batch_key is not None:
            gains = _gains(adata, kept, maxima, lows, codes, learn, fit_on)
            shared_low = lows.mean(axis=0)
            shared_high = shared_low + (gains * (highs - lows)).max(axis=0)
    else:
        lows, highs = (_known_limits(limits, which, groups, channels) for which in ("low", "high"))
        shared_low = np.asarray(limits["shared_low"], dtype=np.float64)
        shared_high = np.asarray(limits["shared_high"], dtype=np.float64)
        gains = _known_limits(limits, "gain", groups, channels) if "gain" in limits else None
        kept = str(limits.get("kept", "")) or None
        low, high = float(limits.get("low_quantile", np.nan)), float(limits.get("high_quantile", np.nan))
    flat = np.flatnonzero(shared_high <= shared_low)
    if len(flat):
        logger.warning("channels %s have no contrast between their limits: they become 0", flat.tolist())
    scale = _Scale(codes, lows, highs, shared_low, shared_high, gains)
    write_slot(adata, "obsm", key, _apply(array, reader, scale))
    write_params(
        adata,
        key,
        about.pop(PARAMS, {}),
        limits={
            "groupby": groupby or "",
            "low": {g: lows[i].tolist() for i, g in enumerate(groups)},
            "high": {g: highs[i].tolist() for i, g in enumerate(groups)},
            "shared_low": shared_low.tolist(),
            "shared_high": shared_high.tolist(),
            "low_quantile": low,
            "high_quantile": high,
            **(
                {}
                if gains is None
                else {"gain": {g: gains[i].tolist() for i, g in enumerate(groups)}, "kept": kept or ""}
            ),
        },
    )
    return adata if copy else None


def _check_cut(about: dict[str, Any]) -> None:
    """Slides put together have the same channels: what they do not agree in, ``ad.concat(uns_merge="same")`` leaves out."""
    if PARAMS in about and "channels" not in about:
        msg = (
            f"uns[{CROPS!r}] names no channels: the slides that were put together have different ones, or the same in another order. "
            "Cut all with the same sst.pp.crop_cells(..., channels=[...])."
        )
        raise ValueError(msg)
    if not about:
        logger.warning(
            "uns[%r] is not there: channels have no names, windows no size. ad.concat(..., uns_merge='same') keeps it",
            CROPS,
        )


def _training_cells(adata: AnnData, codes: np.ndarray, groups: list[str], fit_on: str) -> np.ndarray:
    """Mask of the cells that limits are found on; a group without training cells uses all of its own."""
    learn = _training_mask(adata, fit_on)
    for g, name in enumerate(groups):
        if not learn[codes == g].any():
            logger.warning("group %r has no training cells: its limits are found on all of its cells", name)
            learn = learn | (codes == g)  # the column of pandas 3 is not to be written to
    return learn


def _training_mask(adata: AnnData, fit_on: str) -> np.ndarray:
    """Mask of the training cells; all, if there is no split or ``fit_on`` says so."""
    check_choice("fit_on", fit_on, ["train", "all"])
    if fit_on == "all" or SPLIT not in adata.obs:
        return np.ones(adata.n_obs, bool)
    return (adata.obs[SPLIT].astype(str) == "train").to_numpy()


def _gains(
    adata: AnnData,
    kept: str | None,
    maxima: np.ndarray,
    lows: np.ndarray,
    codes: np.ndarray,
    learn: np.ndarray,
    fit_on: str,
) -> np.ndarray:
    """Factor on each slide's signal, slides x c; groups are fitted on the slides that have training cells."""
    groups = np.zeros(adata.n_obs, np.int64)
    if kept is not None:
        groups = pd.Index(check_groups(adata, kept)).get_indexer(adata.obs[kept].astype(str))
    seen = np.bincount(codes[_training_mask(adata, fit_on)], minlength=len(lows)) > 0
    return slide_gains(maxima, lows, codes, groups, learn, seen if seen.any() else ~seen)


class _Scale:
    """The map of pixels to 0..255, for rows of a known order; integers of up to 16 bit go through a table."""

    def __init__(
        self,
        codes: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        shared_low: np.ndarray,
        shared_high: np.ndarray,
        gains: np.ndarray | None = None,
    ) -> None:
        self.codes, self.low, self.high = codes, low, high  # n; groups x c
        span = shared_high - shared_low
        factor = np.where(span > 0, 255.0 / np.where(span > 0, span, 1.0), 0.0)
        self.start = np.broadcast_to(shared_low, low.shape) if gains is None else low  # what becomes 0
        self.factor = np.broadcast_to(factor, low.shape) if gains is None else factor * gains
        self._table: np.ndarray | None = None

    def rows(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Images of these rows."""
        return self.groups(images, self.codes[rows])

    def groups(self, images: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Images whose groups are ``codes``."""
        codes = np.asarray(codes, dtype=np.int64).reshape(-1)
        if images.dtype in (np.uint8, np.uint16):
            if self._table is None:
                values = np.arange(65536, dtype=np.float64)
                self._table = np.stack(
                    [
                        [self._formula(values, *(part[g, c] for part in self._parts)) for c in range(self.low.shape[1])]
                        for g in range(len(self.low))
                    ]
                )
            return _look_up(np.ascontiguousarray(images), codes, self._table)
        out = np.empty(images.shape, np.uint8)
        for c in range(images.shape[1]):
            parts = (part[codes, c].reshape(-1, 1, 1) for part in self._parts)
            out[:, c] = self._formula(images[:, c].astype(np.float64), *parts)
        return out

    @property
    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.low, self.high, self.start, self.factor

    @staticmethod
    def _formula(x: np.ndarray, low: Any, high: Any, start: Any, factor: Any) -> np.ndarray:
        y = (np.clip(x, low, high) - start) * factor
        y = np.where(np.isfinite(x), y, 0.0)
        return np.clip(np.rint(y), 0, 255).astype(np.uint8)


def _apply(array: Any, reader: CropReader, scale: _Scale) -> Any:
    if hasattr(array, "dask"):
        import dask.array as da

        whole = array.rechunk({1: -1, 2: -1, 3: -1})
        codes = da.from_array(scale.codes.reshape(-1, 1, 1, 1), chunks=(whole.chunks[0], 1, 1, 1))
        scaled = da.map_blocks(scale.groups, whole, codes, dtype=np.uint8, meta=np.empty((0,) * 4, np.uint8))
        if known_reader(array) is not None:
            register(scaled, RowwiseReader(reader, scale.rows, np.uint8))
        return scaled
    out = np.empty(reader.shape, np.uint8)
    for start, stop in _blocks(reader):
        out[start:stop] = scale.rows(reader.block(start, stop), np.arange(start, stop))
    return out


def _extremes(reader: CropReader) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minimum and maximum of every crop and channel (NaN where no pixel is finite), and how many pixels are not finite, n x c."""
    n, c = reader.shape[:2]
    low, high = np.empty((n, c)), np.empty((n, c))
    bad = np.zeros((n, c), np.int64)
    blocks = _blocks(reader)
    for start, stop in tqdm(blocks, desc="intensities", disable=not settings.progress, leave=False):
        flat = reader.block(start, stop).reshape(stop - start, c, -1)
        part = slice(start, stop)
        low[part], high[part] = flat.min(axis=2), flat.max(axis=2)
        if flat.dtype.kind == "f" and not (np.isfinite(low[part]).all() and np.isfinite(high[part]).all()):
            good = np.isfinite(flat)
            bad[part] = (~good).sum(axis=2)
            low[part] = np.where(good, flat, np.inf).min(axis=2)
            high[part] = np.where(good, flat, -np.inf).max(axis=2)
    none = low > high
    low[none] = high[none] = np.nan
    return low, high, bad


def _check_finite(minima: np.ndarray, bad: np.ndarray, codes: np.ndarray, groups: list[str], key: str) -> None:
    """Say how many pixels are not finite; a group and channel without any other is an error."""
    for g, name in enumerate(groups):
        here = codes == g
        for c in np.flatnonzero(bad[here].any(axis=0)):
            if np.isnan(minima[here, c]).all():
                msg = f"obsm[{key!r}]: no pixel of channel {int(c)} is finite in group {name!r}."
                raise ValueError(msg)
            logger.warning(
                "group %r, channel %d: %d pixels of %d crops are not finite; they are kept out of the limits and become 0",
                name, c, int(bad[here, c].sum()), int((bad[here, c] > 0).sum()),
            )  # fmt: skip


def _blocks(reader: CropReader) -> list[tuple[int, int]]:
    n = reader.shape[0]
    rows = max(1, _BLOCK_BYTES // max(1, int(np.prod(reader.shape[1:])) * np.dtype(reader.dtype).itemsize))
    return [(a, min(a + rows, n)) for a in range(0, n, rows)]


def _known_limits(limits: Mapping[str, Any], which: str, groups: list[str], channels: int) -> np.ndarray:
    stored = {g: g if g in limits[which] else column_name(g) for g in groups}  # "a/b" is kept as "a-b"
    missing = [g for g in groups if stored[g] not in limits[which]]
    if missing:
        msg = f"limits[{which!r}] lacks the groups {missing}; it has {list(limits[which])}."
        raise ValueError(msg)
    values = np.array([np.asarray(limits[which][stored[g]], dtype=np.float64).reshape(-1) for g in groups])
    if values.shape[1] != channels:
        msg = f"limits[{which!r}] has {values.shape[1]} channels, the images have {channels}."
        raise ValueError(msg)
    return values


@numba.njit(nogil=True, cache=True)
def _look_up(images: np.ndarray, codes: np.ndarray, table: np.ndarray) -> np.ndarray:
    out = np.empty(images.shape, np.uint8)
    n, channels, height, width = images.shape
    for i in range(n):
        for c in range(channels):
            values = table[codes[i], c]
            for y in range(height):
                for x in range(width):
                    out[i, c, y, x] = values[images[i, c, y, x]]
    return out
