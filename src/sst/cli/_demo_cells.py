"""Held-out cells of the demo: the same cell edited, its true counterfactual, and the rival beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sst._keys import column_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from ._demo_input import DemoInput


def held_cells(
    data: DemoInput, *, edits: Mapping[str, str], truths: Mapping[str, Mapping[str, np.ndarray]], seed: int
) -> AnnData:
    """The held-out cells, with the rival's images in ``obsm["morph_<edit>"]`` and the true ones in ``obsm["truth_<edit>"]``."""
    import sst

    adata = data.adata
    held = adata[(adata.obs["split"] == "test").to_numpy()].copy()
    morph = sst.tl.fit_rival(adata, "morph", groupby=data.groupby, nucleus_channel=data.nucleus, seed=seed)
    source = held.obs[data.groupby].astype(str).to_numpy()
    for name, key in edits.items():
        slot = f"morph_{name}"
        held.obsm[slot] = morph.generate(held, layer=key)  # type: ignore[union-attr]
        held.uns[slot] = {"params": {"model_kind": morph.kind}}
        if truths:
            held.obsm[f"truth_{name}"] = np.zeros(held.obsm["crops"].shape, np.uint8)
            for group, images in truths[name].items():
                held.obsm[f"truth_{name}"][source == group] = images
    return held


def this_cell(data: DemoInput, held: AnnData, *, edits: Mapping[str, str], seed: int) -> dict[str, Any]:
    """How near each cell's image comes to what the cell would truly look like.

    Returns
    -------
    ``[direction][edit]``: ``psnr_to_truth``, ``psnr_no_edit``, ``psnr_rival`` (means over held-out cells, dB), and of the marker and the
    nuclear area ``recovered`` (share of the true mean effect) and ``r`` (correlation over cells with the true change); ``None`` where there is no
    effect to recover.
    """
    import sst

    features = {"marker": f"{column_name(data.marker)}_window_mean", "nucleus_area": "nucleus_area"}
    found: dict[str, Any] = {f"{s}->{t}": {} for s, t in (data.groups, data.groups[::-1])}
    for name, key in edits.items():
        sst.tl.counterfactual_error(
            held,
            f"truth_{name}",
            {"editor": key, "rival": f"morph_{name}"},
            features=list(features.values()),
            groupby=data.groupby,
            seed=seed,
            key_added=f"truth_{name}_error",
        )
        tables = held.uns[f"truth_{name}_error"]
        images = tables["images"].set_index(["method", "source"])["psnr"]
        effects = tables["features"].set_index(["method", "source", "feature"])
        for source, target in (data.groups, data.groups[::-1]):
            mine = {f: effects.loc[("editor", source, column)] for f, column in features.items()}
            found[f"{source}->{target}"][name] = {
                "psnr_to_truth": _number(images["editor", source], 2),
                "psnr_no_edit": _number(images["no edit", source], 2),
                "psnr_rival": _number(images["rival", source], 2),
                "recovered": {f: _number(row["share"], 3) for f, row in mine.items()},
                "r": {f: _number(row["r"], 3) for f, row in mine.items()},
            }
    return found


def _number(value: Any, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None
