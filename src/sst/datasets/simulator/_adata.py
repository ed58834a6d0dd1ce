"""Paired cells of a simulated tissue, without the way through files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sst import _keys
from sst._validate import check_choice, check_range

from ._config import CHANNELS, MARKER_CHANNEL, NUCLEUS_CHANNEL
from ._features import features_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from ._slides import Slides


def to_adata(
    tissue: Slides,
    size: int = 64,
    output_size: int = 32,
    channels: Sequence[str] = (MARKER_CHANNEL, NUCLEUS_CHANNEL),
    *,
    border: int = 0,
    min_qv: float = 0.0,
) -> AnnData:
    """Paired cells of all slides, as writing, reading and cropping would give them.

    Parameters
    ----------
    tissue
        The tissue.
    size
        Side of the window, px: ``[floor(x) - size // 2, floor(x) - size // 2 + size)``.
    output_size
        Side of the image that the window is resized to (bicubic, antialiased).
    channels
        Stains.
    border
        Leave out cells whose window comes nearer than this to an edge of the field of view, px.
    min_qv
        Leave out transcripts of less quality (CosMx files have none; Xenium readers take 20).

    Returns
    -------
    Cells whose window lies inside their field of view, slide by slide. ``X`` (CSR, float32): transcripts of each gene inside the
    window, neighbours' and ambient ones included; ``layers["segmented"]``: those on the cell's own mask; ``obsm["crops"]`` (n x
    c x output_size x output_size, uint16); ``obsm["spatial_px"]``, ``obsm["spatial"]`` (um on the slide); ``obs``: ``condition``,
    ``sample``, ``donor`` (the slide), ``fov``, ``cell_id`` (the name that :meth:`Tissue.render` takes), ``label``, ``cell_type`` and the truth: ``true_nucleus_area`` (um2), ``true_marker``, ``true_texture``,
    ``true_depth``, ``true_elongation``, ``true_log_<causal gene>``; ``var``: the gene table; ``uns["crops"]``.
    """
    import anndata as ad
    import scipy.sparse as sp

    from sst.io.crops import count_windows, cut_windows, index_transcripts, window_corners

    for name, value in (("size", size), ("output_size", output_size)):
        check_range(name, value, low=1)
    check_range("border", border, low=0)
    check_range("min_qv", min_qv, low=0)
    for channel in channels:
        check_choice("channel", channel, CHANNELS)
    config = tissue.config
    p = len(tissue.genes)
    counts, segmented, crops, kept, where = [], [], [], [], []
    for slide in config.slides:
        for fov in range(1, config.fovs + 1):
            view = tissue.draw(slide, fov, channels=channels)
            centre = np.floor(view.causes[["x", "y"]].to_numpy())  # as a table of the vendor's has it
            corners = window_corners(centre, size)
            inside = ((corners >= border) & (corners + size <= config.side - border)).all(axis=1)
            good = view.transcripts["qv"] >= min_qv
            t = {name: values[good] for name, values in view.transcripts.items()}
            counts.append(count_windows(index_transcripts(t["x"], t["y"], t["gene"]), corners[inside], size, p))
            on = t["cell"] > 0
            shape = (len(view.causes), p)
            own = sp.coo_matrix((np.ones(on.sum(), np.float32), (t["cell"][on] - 1, t["gene"][on])), shape=shape)
            segmented.append(own.tocsr()[inside])
            crops.append(cut_windows(view.images, corners[inside], size, output_size))
            kept.append(view.causes[inside])
            corner = _fov_corner(tissue, fov)
            where.append(np.concatenate([centre[inside], (centre[inside] + corner) * config.pixel_size], axis=1))
    causes = pd.concat(kept)
    if not len(causes):
        msg = f"size={size}, border={border}: no window lies inside a field of view of {config.side} px."
        raise ValueError(msg)
    obs = pd.DataFrame(
        {
            _keys.CONDITION: pd.Categorical(causes["group"], categories=list(config.groups)),
            _keys.SAMPLE: pd.Categorical(causes["donor"], categories=list(config.slides)),
            _keys.DONOR: pd.Categorical(causes["donor"], categories=list(config.slides)),
            _keys.FOV: pd.Categorical(causes["fov"].astype(str), [str(f + 1) for f in range(config.fovs)]),
            "cell_id": causes.index.to_numpy(str),
            "label": causes["cell"].to_numpy(),
            "cell_type": pd.Categorical(causes["cell_type"]),
        },
        index=causes.index.astype(str),
    )
    obs.index.name = None
    for feature in dict.fromkeys(("nucleus_area", "marker", "texture", "depth", "elongation", *features_of(config))):
        obs[f"true_{feature}"] = causes[feature].to_numpy()
    for name in tissue.genes.index[tissue.genes["causes"] != ""]:
        obs[f"true_log_{name}"] = causes[f"latent_{name}"].to_numpy()
    adata = ad.AnnData(sp.vstack(counts, format="csr").astype(np.float32), obs=obs, var=tissue.genes.copy())
    adata.var_names = adata.var_names.astype(str)
    adata.var.index.name = None
    places = np.concatenate(where)
    _keys.write_slot(adata, "layers", _keys.SEGMENTED, sp.vstack(segmented, format="csr").astype(np.float32))
    _keys.write_slot(adata, "obsm", _keys.CROPS, np.concatenate(crops))
    _keys.write_slot(adata, "obsm", _keys.SPATIAL_PX, places[:, :2])
    _keys.write_slot(adata, "obsm", _keys.SPATIAL, places[:, 2:])
    _keys.write_params(
        adata,
        _keys.CROPS,
        {
            "size": size,
            "output_size": output_size,
            "channels": list(channels),
            "border": border,
            "min_qv": min_qv,
            "origin": repr(tissue),
        },
        channels=list(channels),
        size=size,
        output_size=output_size,
        pixel_size=config.pixel_size * size / output_size,
    )
    return adata


def _fov_corner(tissue: Slides, fov: int) -> np.ndarray:
    """Where the pixel (0, 0) of a field of view lies on the slide, px (x, y)."""
    columns, _ = tissue.config.grid
    return np.array([(fov - 1) % columns, (fov - 1) // columns], float) * tissue.config.side
