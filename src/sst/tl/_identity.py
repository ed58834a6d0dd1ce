"""How much of a cell is still itself after an edit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst import _keys
from sst._arguments import checked
from sst._validate import check_range, resolve_table

from ._measuring import get_images, iter_images

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked
def identity(
    adata: AnnData | SpatialData,
    *,
    key: str = _keys.EDITED,
    reference: str = _keys.CROPS,
    model: Any = "last",
    radius: float = 0.5,
    key_added: str | None = None,
    table_key: str = _keys.TABLE,
    device: str | None = None,
) -> None:
    """Score, cell by cell, how far an image is still of the same cell in the same place.

    Two scores: the cosine of the CLIP image embeddings of both images, and the PSNR of the background, the pixels outside a
    disc around the cell at the crop's centre. The first says whether the cell is still of its kind; the second whether an edit
    of this cell's genes left its neighbours alone.

    Parameters
    ----------
    adata
        Object with images.
    key, reference
        Slots of ``obsm`` that are compared.
    model
        CLIP or inversion (it holds the CLIP that it was trained with): ``"last"``, a name, a folder or a model.
    radius
        Of the disc, as a share of half the crop's side.
    key_added
        Begins the columns' names; ``key`` if left out.
    table_key
        Table of a SpatialData.
    device
        Defaults to the setting.

    Returns
    -------
    ``None``; writes ``obs[f"{key_added}_identity"]`` (float32, 1 is the same embedding), ``obs[f"{key_added}_background_psnr"]``
    (float32, dB; infinite where nothing changed; both NaN where there is no image), and ``uns[f"{key_added}_identity"]["params"]``.

    Raises
    ------
    KeyError
        A slot is not there.
    TypeError
        The model has no image embedding.
    """
    from sst.models import resolve

    table = resolve_table(adata, table_key)
    check_range("radius", radius, low=0, high=1.4)
    images, originals = get_images(table, key), get_images(table, reference)
    if images.shape != originals.shape:
        msg = f"obsm[{key!r}] is {images.shape}, obsm[{reference!r}] is {originals.shape}: they must be of the same crops."
        raise ValueError(msg)
    found = resolve(table, model)
    if not hasattr(found, "embed_images"):
        msg = f"model={model!r} is a {found.registry.kind}, which embeds no images: give a CLIP or an inversion."
        raise TypeError(msg)
    if device is not None:
        found.to(device)
    name = key_added or key
    rows = np.flatnonzero(_keys.drawn(table, key, reference))
    values = {score: np.full(table.n_obs, np.nan, np.float32) for score in ("identity", "background_psnr")}
    for (part, x), (_, y) in zip(iter_images(images, rows), iter_images(originals, rows), strict=True):
        a, b = (found.embed_images(both) for both in (x, y))
        values["identity"][part] = np.sum(a * b, axis=1)
        values["background_psnr"][part] = background_psnr(x, y, radius=radius)
    for score, value in values.items():
        _keys.write_slot(table, "obs", f"{name}_{score}", value)
    params = {"key": key, "reference": reference, "model_hash": str(found.hash), "radius": radius}
    _keys.write_params(table, f"{name}_identity", params)


def background_psnr(x: np.ndarray, y: np.ndarray, *, radius: float = 0.5) -> np.ndarray:
    """PSNR (n,) in dB of 8-bit images outside a central disc of ``radius`` times half the side; infinite where equal."""
    far = ~central_disc(x.shape[2:], radius)
    error = np.square(x[:, :, far].astype(np.float32) - y[:, :, far].astype(np.float32)).mean((1, 2))
    with np.errstate(divide="ignore"):
        return (10 * np.log10(255.0**2 / error)).astype(np.float32)


def central_disc(shape: tuple[int, ...], radius: float) -> np.ndarray:
    """Mask (h, w) of the disc at the centre, ``radius`` times half the side."""
    h, w = shape
    rows, columns = np.ogrid[:h, :w]
    return np.hypot((rows - (h - 1) / 2) / (h / 2), (columns - (w - 1) / 2) / (w / 2)) <= radius
