"""The features of a cell that genes set: how they follow from the latent expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._genes import latent_moments

if TYPE_CHECKING:
    from ._config import TissueConfig


@dataclass(frozen=True)
class Feature:
    """One feature: ``kind`` of its scale, ``base`` in the first group, SD of its own noise (on that scale), bounds.

    ``"log"``: log feature = log base + causes + noise. ``"excess"``: the same of the feature less 1. ``"logit"``: the same with
    the logit. A base of 0 is the setting of that name, or that of the cell's type.
    """

    kind: str
    base: float
    noise: float
    low: float = 0.0
    high: float = np.inf


PLAIN = {
    "marker": Feature("log", 0.0, 0.10),
    "nucleus_area": Feature("log", 0.0, 0.05),
    "texture": Feature("log", 0.17, 0.15),
}
FULL = {
    "marker": Feature("log", 0.0, 0.15),
    "nucleus_area": Feature("log", 0.0, 0.12, 6.0, 150.0),
    "texture": Feature("log", 0.22, 0.20, 0.0, 1.2),
    "elongation": Feature("excess", 0.0, 0.35, 1.0, 5.0),
    "lobes": Feature("log", 0.06, 0.40, 0.0, 0.36),
    "two_nuclei": Feature("logit", 0.04, 0.30),
    "vacuoles": Feature("log", 2.4, 0.40, 0.0, 8.0),
    "membrane": Feature("logit", 0.62, 0.30),
    "granules": Feature("log", 1.2, 0.50, 0.0, 16.0),
}


def features_of(config: TissueConfig) -> dict[str, Feature]:
    """The features of a tissue, by name."""
    return FULL if config.detail == "full" else PLAIN


def draw_features(config: TissueConfig, genes: pd.DataFrame, latent: np.ndarray, causes: pd.DataFrame) -> pd.DataFrame:
    """The features that the causal genes set, of each cell.

    ``marker``, ``nucleus_area`` (um2), ``nucleus_area_px``, ``texture``; with full detail ``elongation``, ``lobes`` (depth of the
    outline's bays, of its radius), ``two_nuclei`` (probability) and ``nuclei`` (1 or 2), ``vacuoles``, ``granules`` (expected
    numbers), ``membrane`` (share of the marker at the membrane).
    """
    reference, _ = latent_moments(genes, config.groups[0])
    settings = {"marker": config.marker, "nucleus_area": config.nucleus_area}
    out = {}
    for name, feature in features_of(config).items():
        cause = _cause(genes, latent, reference, name) + causes[f"{name}_noise"].to_numpy(float)
        if name == "nucleus_area" and config.hidden:
            cause = cause + config.hidden * causes["hidden"].to_numpy(float)
        base = feature.base or settings.get(name, 1.0)
        if config.detail == "plain":
            out[name] = base * np.exp(cause)
            continue
        if f"type_{name}" in causes:
            base = base * causes[f"type_{name}"].to_numpy(float)
        if feature.kind == "log":
            value = base * np.exp(cause)
        elif feature.kind == "excess":
            value = 1 + (base - 1) * np.exp(cause)
        else:
            value = 1 / (1 + np.exp(-np.log(base / (1 - base)) - cause))
        out[name] = np.clip(value, feature.low, feature.high)
    out["nucleus_area_px"] = out["nucleus_area"] / config.pixel_size**2
    if "two_nuclei" in out:
        out["nuclei"] = np.where(causes["two_nuclei_draw"].to_numpy(float) < out["two_nuclei"], 2, 1)
    return pd.DataFrame(out, index=causes.index)


def _cause(genes: pd.DataFrame, latent: np.ndarray, reference: np.ndarray, feature: str) -> np.ndarray:
    """What the genes add to a feature, n: log-linear, saturating (s tanh(x / s)) and joint (only together) effects."""
    mine = genes["causes"].to_numpy(str) == feature
    size = genes["effect"].to_numpy(float)
    response = genes["response"].to_numpy(str)
    linear = np.where(mine & (response == "linear"), size, 0.0)
    total = latent @ linear - reference @ linear
    for g in np.flatnonzero(mine & (response == "saturating")):
        limit = genes["limit"].iloc[g]
        total = total + size[g] * limit * np.tanh((latent[:, g] - reference[g]) / limit)
    for g in np.flatnonzero(mine & (response == "joint")):
        partner = int(genes.index.get_indexer([genes["partner"].iloc[g]])[0])
        if partner > g:  # a pair acts once
            total = total + size[g] * _on(genes, latent, reference, int(g)) * _on(genes, latent, reference, partner)
    return total


def _on(genes: pd.DataFrame, latent: np.ndarray, reference: np.ndarray, g: int) -> np.ndarray:
    """How far a gene of a pair is switched on, 0 to 1: half at ``limit`` above the mean of the first group."""
    limit = genes["limit"].iloc[g]
    return 1 / (1 + np.exp(-4 * (latent[:, g] - reference[g] - limit) / limit))
