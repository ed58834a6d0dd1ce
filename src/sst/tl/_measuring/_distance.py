"""Distances between samples of images, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst import _keys
from sst._validate import describe_options
from sst.metrics import d_eig, d_lea, frechet_distance, kid, precision_recall

from ._features import FeatureSample, get_images, sample_features
from ._truth import fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData

METRICS = ("frechet", "kid", "d_eig", "d_lea", "precision", "recall")


def edited_groups(adata: AnnData, key: str, groups: Sequence[str]) -> list[str]:
    """Groups whose cells an edit changed (all, if the slot is no edit or one in every direction)."""
    params = adata.uns.get(key, {}).get(_keys.PARAMS, {}) if hasattr(adata.uns.get(key, {}), "get") else {}
    source, target = params.get("source"), params.get("target")
    if source:
        return [g for g in groups if g == str(source)]
    return [g for g in groups if not target or g != str(target)]


def measure_distances(
    adata: AnnData,
    space: Any,
    rows: Mapping[str, np.ndarray],
    *,
    keys: Sequence[str],
    metrics: Sequence[str],
    n: int,
    repeats: int,
    seed: int,
    device: str | None,
) -> pd.DataFrame:
    """The table of :func:`distances`; ``rows``: group -> rows of its cells."""
    groups = list(rows)
    rng = np.random.default_rng(seed)
    fields = fields_of(adata, _keys.FOV)
    first: dict[tuple[str, int], np.ndarray] = {}
    second: dict[tuple[str, int], np.ndarray] = {}
    for repeat in range(repeats):
        for group in groups:
            order = _order(rows[group], n, fields, rng)
            first[group, repeat], second[group, repeat] = order[:n], order[n : 2 * n]
    draws = {("a", *k): v for k, v in first.items()} | {("b", *k): v for k, v in second.items()}
    real = sample_features(space, get_images(adata, _keys.CROPS), draws, label="features of crops")
    floors = {
        (group, metric): [
            distance(metric, real["a", group, r], real["b", group, r], device=device) for r in range(repeats)
        ]
        for group in groups
        for metric in metrics
    }
    out: list[dict[str, Any]] = []
    for key in keys:
        sources = edited_groups(adata, key, groups)
        if key == _keys.CROPS:
            made = {k[1:]: v for k, v in real.items() if k[0] == "a"}
        else:
            wanted = {k: v for k, v in first.items() if k[0] in sources}
            made = sample_features(space, get_images(adata, key), wanted, label=f"features of {key}")
        for source in sources:
            for reference in groups:
                # own group: the other half of its cells, so that no cell meets its own image
                half = "b" if reference == source else "a"
                for metric in metrics:
                    values = [
                        distance(metric, real[half, reference, r], made[source, r], device=device)
                        for r in range(repeats)
                    ]
                    floor = floors[reference, metric]
                    out.append(
                        {
                            "key": key,
                            "source": source,
                            "reference": reference,
                            "relation": "own" if reference == source else "other",
                            "metric": metric,
                            "mean": float(np.mean(values)),
                            "sd": float(np.std(values, ddof=1)) if repeats > 1 else 0.0,
                            "floor": float(np.mean(floor)),
                            "floor_sd": float(np.std(floor, ddof=1)) if repeats > 1 else 0.0,
                            "n": n,
                            "repeats": repeats,
                            "features": space.name,
                        }
                    )
    return pd.DataFrame(out)


def _order(rows: np.ndarray, n: int, fields: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """A group's cells in the order in which samples of n take them.

    Where two samples leave less than half of a group over, draws of cells would be nearly the same ones again and again: whole fields are drawn. The spread of
    halves of the fields is the standard error of the whole (half-samples: McCarthy, 1969).
    """
    if fields is None or 4 * n <= len(rows):
        return rng.permutation(rows)
    names, of = np.unique(fields[rows], return_inverse=True)
    place = rng.permutation(len(names))[of]
    return rows[np.lexsort((rng.random(len(rows)), place))]


def distance(metric: str, real: FeatureSample, other: FeatureSample, *, device: str | None = None) -> float:
    """One distance between two samples of features."""
    if metric == "frechet":
        return frechet_distance(real.gaussian, other.gaussian, device=device)
    if metric == "kid":
        return kid(real.vectors, other.vectors)
    if metric in {"d_eig", "d_lea"}:
        k = min(5, real.vectors.shape[1])
        return (
            d_eig(other.gaussian, real.gaussian, k=k)
            if metric == "d_eig"
            else d_lea(other.gaussian, real.gaussian, k=k)
        )
    if metric in {"precision", "recall"}:
        return getattr(precision_recall(real.vectors, other.vectors, k=min(3, len(real.vectors) - 1)), metric)
    msg = f"metric={metric!r} is not known. {describe_options(METRICS, metric)}"
    raise ValueError(msg)
