"""Names of slots, groups and measures as the figures of the evaluation write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sst import _keys
from sst._validate import describe_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

LABELS = {_keys.CROPS: "real", _keys.GENERATED: "generated", _keys.EDITED: "edited"}
FEATURES = {
    "nucleus_area": "nuclear area",
    "nucleus_area_px": "nuclear area (px)",
    "nucleus_eccentricity": "nuclear eccentricity",
    "nucleus_solidity": "nuclear solidity",
    "nucleus_texture": "chromatin contrast",
    "nucleus_grain": "chromatin grain",
}
EXPRESSION = {"total_counts": "transcripts a cell", "toward_target": "way toward the target\n(0 source, 1 target)"}
MOST_CELLS = 20_000
"""Cells of a group that are drawn and tested."""


def key_label(key: str, adata: AnnData | None = None) -> str:
    """``crops`` is shown as "real", what an inversion made as "reconstructed"; other slots by their names."""
    if key == _keys.GENERATED and adata is not None:
        for slot in (_keys.GENERATED, _keys.EDITED):
            entry = _keys.entry(adata, slot)
            params = entry.get(_keys.PARAMS, {})
            if str(params.get("model_kind", "")) == "inversion":
                return "reconstructed"
    return LABELS.get(key, key.replace("_", " "))


def measured_keys(adata: AnnData) -> list[str]:
    """Slots that :func:`sst.tl.morphology` measured: real, generated, then edits."""
    keys = [k.removesuffix("_morphology") for k in adata.uns if k.endswith("_morphology")]
    first = [k for k in (_keys.CROPS, _keys.GENERATED) if k in keys]
    return first + [k for k in keys if k not in first]


def feature_column(adata: AnnData, key: str, feature: str) -> np.ndarray:
    """``obs[f"{key}_{feature}"]`` as float; an error that names what was measured."""
    column = f"{key}_{_keys.column_name(feature)}"
    if column not in adata.obs:
        known = [c.removeprefix(f"{key}_") for c in adata.obs.columns if c.startswith(f"{key}_")]
        if not known:
            msg = f"obs has no measures of {key!r}: run sst.tl.morphology(adata, key={key!r}) first."
            raise KeyError(msg)
        msg = f"feature={feature!r} was not measured in {key!r}. {describe_options(known, feature)}"
        raise KeyError(msg)
    return adata.obs[column].to_numpy(dtype=float)


def nucleus_channel(adata: AnnData, key: str) -> str:
    """The channel that was segmented."""
    return str(_keys.entry(adata, f"{key}_morphology").get(_keys.PARAMS, {}).get("nucleus_channel", ""))


def default_features(adata: AnnData, key: str) -> list[str]:
    """Nuclear area, the other channels' mean over the window, and the nuclear stain's in the nucleus."""
    channels = [str(c) for c in _keys.entry(adata, _keys.CROPS).get("channels", [])]
    nucleus = nucleus_channel(adata, key)
    out = ["nucleus_area", *(f"{c}_window_mean" for c in channels if c != nucleus)]
    return [*out, f"{nucleus}_nucleus_mean"] if nucleus else out


def feature_label(adata: AnnData, key: str, feature: str) -> str:
    """A measure as an axis label, with its unit."""
    if feature == "nucleus_area":
        unit = str(_keys.entry(adata, f"{key}_morphology").get("area_unit", "px"))
        return f"nuclear area ({'µm²' if unit == 'um2' else 'px'})"
    if feature in FEATURES:
        return FEATURES[feature]
    for where in ("window", "nucleus", "ring"):
        for kind in ("mean", "total"):
            if feature.endswith(f"_{where}_{kind}"):
                place = {"window": "window", "nucleus": "nucleus", "ring": "rim"}[where]
                return f"{_channel(adata, feature.removesuffix(f'_{where}_{kind}'))}, {kind} in {place}"
    return feature.replace("_", " ")


def _channel(adata: AnnData, column: str) -> str:
    """A channel's own name, from its name in columns (without a slash)."""
    names = (str(c) for c in _keys.entry(adata, _keys.CROPS).get("channels", []))
    return next((name for name in names if _keys.column_name(name) == column), column)


def change_label(adata: AnnData, feature: str) -> str:
    """A measure as the label of an axis of changes, with its unit; features of the user's own keep their names."""
    if feature == "nucleus_area":
        known = float(_keys.entry(adata, _keys.CROPS).get("pixel_size", 0.0) or 0.0) > 0
        return f"nuclear area ({'µm²' if known else 'px'})"
    if feature in EXPRESSION:
        return EXPRESSION[feature]
    label = feature_label(adata, "", feature)
    intensity = label != feature and feature.endswith(("_mean", "_total"))
    return f"{label} (grey levels)".replace(", ", ",\n") if intensity else label


def edit_target(adata: AnnData, key: str, source: str, groups: Sequence[str]) -> str | None:
    """The group that ``key`` took cells of ``source`` to; ``None`` if it left them or goes toward no group."""
    if key in {_keys.CROPS, _keys.GENERATED}:
        return None
    entry = _keys.entry(adata, key)
    params = entry.get(_keys.PARAMS, {})
    start, goal = params.get("source"), params.get("target")
    if (start and str(start) != source) or str(goal) == source:
        return None
    if goal:
        return str(goal)
    report = entry.get(_keys.REPORT, {}) if hasattr(entry, "get") else {}
    if "directions" in report:
        table = report["directions"]
        row = table[table["source"].astype(str) == source]
        return str(row["target"].iloc[0]) or None if len(row) else None
    others = [g for g in groups if g != source]
    return others[0] if len(others) == 1 else None


def sample(mask: np.ndarray, most: int = MOST_CELLS, seed: int = 0) -> np.ndarray:
    """Rows of a mask, at most ``most`` of them, sorted."""
    rows = np.flatnonzero(mask)
    return rows if len(rows) <= most else np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def grouping(adata: AnnData, groupby: str | None) -> str:
    """``groupby``, or the column of the distances or edits on the object, or ``"condition"``."""
    if groupby is None:
        for key in ("distances", _keys.EDITED):
            entry = _keys.entry(adata, key)
            params = entry.get(_keys.PARAMS, {})
            if params.get("groupby"):
                return str(params["groupby"])
        return _keys.CONDITION
    return groupby
