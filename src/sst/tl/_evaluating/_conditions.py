"""Images of a condition, made as they are needed, and what is measured on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from sst import _keys
from sst.metrics import bootstrap_ci, compare_groups, lpips, psnr, ssim
from sst.models import draw_options
from sst.tl._measuring import distance, row_reader, sample_features

from ._donors import change_row, donor_rows, gap_row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from sst.metrics import FeatureSpace
    from sst.tl._measuring import FeatureSample, NucleusView

    from ._plan import Condition


class Images:
    """Rows of images, real or made on the fly; what passes is also measured for the cells that want it.

    Parameters
    ----------
    make
        Rows (sorted) -> images.
    watch
        Rows whose nuclei are measured when they pass.
    view
        How nuclei are measured.
    compare
        Rows -> real crops: reconstruction quality of the watched rows against them.
    lpips_weights
        For LPIPS; ``None``: not measured.
    """

    def __init__(
        self,
        make: Any,
        watch: np.ndarray,
        view: NucleusView,
        *,
        compare: Any = None,
        lpips_weights: str | Path | None = None,
        device: str | None = None,
    ) -> None:
        self._make, self._watch, self._view = make, np.sort(watch), view
        self._compare, self._lpips, self._device = compare, lpips_weights, device
        self._tables: list[pd.DataFrame] = []
        self._quality: list[pd.DataFrame] = []

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        images = np.asarray(self._make(rows))
        inside = np.isin(rows, self._watch)
        if inside.any():
            table = self._view.measure(images[inside], n_jobs=1)
            table.index = rows[inside]
            self._tables.append(table)
            if self._compare is not None:
                real = self._compare(rows[inside])
                self._quality.append(self._against(real, images[inside], rows[inside]))
        return images

    def _against(self, real: np.ndarray, made: np.ndarray, rows: np.ndarray) -> pd.DataFrame:
        channels = [*self._view.channels[: real.shape[1]], "all"]
        values: dict[str, np.ndarray] = {}
        for name, function in (("psnr", psnr), ("ssim", ssim)):
            each = np.column_stack([function(real, made, per_channel=True), function(real, made)])
            values |= {f"{name}|{channel}": each[:, k] for k, channel in enumerate(channels)}
        if self._lpips is not None:
            options: dict[str, Any] = {"weights": self._lpips, "device": self._device}
            each = lpips(real, made, per_channel=True, **options)
            values |= {f"lpips|{channel}": each[:, k] for k, channel in enumerate(channels[:-1])}
            if real.shape[1] <= 3:
                values["lpips|all"] = lpips(real, made, **options)
        return pd.DataFrame(values, index=rows)

    @property
    def measures(self) -> pd.DataFrame:
        """Nuclear features of the watched rows that passed, by row."""
        return pd.concat(self._tables).sort_index() if self._tables else pd.DataFrame()

    @property
    def quality(self) -> pd.DataFrame:
        """PSNR, SSIM (and LPIPS) of each watched row."""
        return pd.concat(self._quality).sort_index() if self._quality else pd.DataFrame()


def maker(
    model: Any,
    cells: AnnData,
    condition: Condition,
    *,
    layer: str | None,
    source_layer: str | None,
    seed: int,
    batch_size: int | None,
) -> Any:
    """Rows -> images of a condition. Latent and noise depend on the cell and the seed alone; ``source_layer``: the unedited counts."""
    options: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "progress": False}
    options |= draw_options(model, source_layer=source_layer, fade=0.0 if condition.edit == "none" else 1.0)

    def make(rows: np.ndarray) -> np.ndarray:
        return model.generate(cells[rows], layer=layer, **options)

    return make


class Reals:
    """Real cells of one choice of cells: draws, features, floors, measures; computed once for all conditions."""

    def __init__(
        self,
        adata: AnnData,
        rows: Mapping[str, np.ndarray],
        *,
        n: int,
        repeats: int,
        seed: int,
        space: FeatureSpace,
        n_measured: int,
        view: NucleusView,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.groups, self.n, self.repeats, self.space = list(rows), n, repeats, space
        self.first: dict[tuple[str, int], np.ndarray] = {}
        draws: dict[tuple[str, str, int], np.ndarray] = {}
        for repeat in range(repeats):
            for group in rows:
                order = rng.permutation(rows[group])
                self.first[group, repeat] = order[:n]
                draws["a", group, repeat], draws["b", group, repeat] = order[:n], order[n : 2 * n]
        self.watch = np.concatenate([self.first[g, 0][:n_measured] for g in rows])
        images = Images(row_reader(adata.obsm[_keys.CROPS]), self.watch, view)
        self.features = sample_features(space, images, draws, label="features of real cells")
        self.measures = images.measures
        self._floors: dict[tuple[str, str], list[float]] = {}

    def floor(self, group: str, metric: str, device: str | None) -> list[float]:
        """Distance between two disjoint samples of real cells, a value a repeat."""
        if (group, metric) not in self._floors:
            self._floors[group, metric] = [
                distance(metric, self.features["a", group, r], self.features["b", group, r], device=device)
                for r in range(self.repeats)
            ]
        return self._floors[group, metric]


def distance_rows(
    condition: Condition, reals: Reals, made: Mapping[Any, FeatureSample], metrics: Sequence[str], device: str | None
) -> pd.DataFrame:
    """One row a direction, reference, metric and repeat."""
    out = []
    for source in reals.groups:
        for reference in reals.groups:
            half = "b" if reference == source else "a"
            for metric in metrics:
                floor = reals.floor(reference, metric, device)
                for r in range(reals.repeats):
                    value = distance(metric, reals.features[half, reference, r], made[source, r], device=device)
                    out.append(
                        {
                            "images": condition.images,
                            "edit": condition.edit,
                            "cells": condition.cells,
                            "source": source,
                            "reference": reference,
                            "relation": "own" if reference == source else "other",
                            "metric": metric,
                            "repeat": r,
                            "value": value,
                            "floor": floor[r],
                        }
                    )
    return pd.DataFrame(out)


def measure_condition(
    condition: Condition,
    make: Any,
    reals: Reals,
    *,
    metrics: Sequence[str],
    view: NucleusView,
    device: str | None,
    compare: Any,
    lpips_weights: Any,
) -> dict[str, pd.DataFrame]:
    """All that is measured on a condition: ``distances``, ``measures`` (per cell) and ``quality`` (per cell)."""
    images = Images(make, reals.watch, view, compare=compare, lpips_weights=lpips_weights, device=device)
    made = sample_features(reals.space, images, reals.first, label=condition.name)
    measures = images.measures
    quality = images.quality
    return {
        "distances": distance_rows(condition, reals, made, metrics, device),
        "measures": measures.rename_axis("row").reset_index(),
        "quality": quality.rename_axis("row").reset_index() if len(quality) else pd.DataFrame(),
    }


def summarise_distances(raw: pd.DataFrame, n: Mapping[str, int], features: str, level: float) -> pd.DataFrame:
    """Mean and sd over repeats, and what the edit changed against before it, with its interval.

    ``change`` is after - before on the same cells, repeat by repeat; its interval is Student's over the repeats.
    """
    keys = ["images", "edit", "cells", "source", "reference", "relation", "metric"]
    before = raw[raw["edit"] == "none"].set_index(["images", "cells", "source", "reference", "metric", "repeat"])[
        "value"
    ]
    out = []
    for values, part in raw.groupby(keys, sort=False):
        name = dict(zip(keys, values, strict=True))
        r = len(part)
        index = pd.MultiIndex.from_frame(part[["images", "cells", "source", "reference", "metric", "repeat"]])
        change = part["value"].to_numpy() - before.reindex(index).to_numpy()
        sd = float(change.std(ddof=1)) if r > 1 else 0.0
        half = float(stats.t.ppf((1 + level) / 2, r - 1)) * sd / r**0.5 if r > 1 else float("nan")
        role = {"none": "before", "random": "control", "fade": "control"}.get(name["edit"], "after")
        out.append(
            name
            | {
                "role": role,
                "mean": float(part["value"].mean()),
                "sd": float(part["value"].std(ddof=1)) if r > 1 else 0.0,
                "floor": float(part["floor"].mean()),
                "floor_sd": float(part["floor"].std(ddof=1)) if r > 1 else 0.0,
                "change": float(change.mean()),
                "change_low": float(change.mean()) - half,
                "change_high": float(change.mean()) + half,
                "n": n[name["cells"]],
                "repeats": r,
                "features": features,
            }
        )
    return pd.DataFrame(out)


def summarise_measures(
    tables: Mapping[Condition, pd.DataFrame],
    reals: Mapping[str, Reals],
    labels: np.ndarray,
    fields: np.ndarray,
    donors: np.ndarray | None = None,
    *,
    target: str | None = None,
    level: float,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Changes of cell features by an edit, against the gap between the groups' real cells; and the same of each donor.

    ``change``: mean over cells of after - before, its interval over fields of view (over cells where there is one field alone);
    ``gap``: mean of the target's real cells - mean of the source's; ``gap_closed`` = change / gap; effect sizes as
    :func:`sst.metrics.compare_groups`; ``p``: t-test of the fields' mean changes against 0 (NaN under three fields); ``q``: the
    same, corrected for all rows (Benjamini and Hochberg). With ``donors`` means, intervals and tests are over donors.
    """
    out: list[dict[str, Any]] = []
    each: list[dict[str, Any]] = []
    for condition, after in tables.items():
        before = next(
            (
                t
                for c, t in tables.items()
                if (c.images, c.edit, c.cells) == (condition.images, "none", condition.cells)
            ),
            None,
        )
        if condition.edit == "none" or before is None or not len(after):
            continue
        real = reals[condition.cells].measures
        groups = reals[condition.cells].groups
        features = [
            c
            for c in after.columns
            if c not in {"row", "nucleus_status", "nucleus_ok", "nucleus_area_px"} and not c.endswith("_total")
        ]
        rows = after["row"].to_numpy()
        of = {"images": condition.images, "edit": condition.edit, "role": condition.role, "cells": condition.cells}
        for source in (g for g in groups if g != target):
            own = labels[rows] == source
            mine = None if donors is None else donors[rows][own]
            for to in (g for g in groups if g != source and target in {None, g}):
                for feature in features:
                    a, b = after[feature].to_numpy(float)[own], before[feature].to_numpy(float)[own]
                    compared = compare_groups(a, b, paired=True, level=level, n_resamples=200, seed=seed)
                    found = change_row(a - b, fields[rows][own], mine, level=level, seed=seed)
                    first, second = (real.loc[labels[real.index] == g, feature].astype(float) for g in (source, to))
                    found |= gap_row(first, second, donors, level=level)
                    name = of | {"source": source, "target": to, "feature": feature}
                    out.append(
                        name
                        | {
                            "before": float(np.nanmean(b)) if np.isfinite(b).any() else np.nan,
                            "after": float(np.nanmean(a)) if np.isfinite(a).any() else np.nan,
                            **found,
                            "gap_closed": found["change"] / found["gap"] if found["gap"] else np.nan,
                            "hedges_g": compared.hedges_g,
                            "cliffs_delta": compared.cliffs_delta,
                            "n": compared.n_x,
                        }
                    )
                    each += [] if mine is None else [name | row for row in donor_rows(a - b, mine)]
    table = pd.DataFrame(out)
    if len(table):
        known = table["p"].notna()
        table["q"] = np.nan
        if known.any():
            table.loc[known, "q"] = stats.false_discovery_control(table.loc[known, "p"])
    return table, pd.DataFrame(each)


def summarise_quality(
    tables: Mapping[Condition, pd.DataFrame], labels: np.ndarray, *, level: float, seed: int
) -> pd.DataFrame:
    """Mean PSNR, SSIM (and LPIPS) of unedited images against the real ones, with bootstrap intervals."""
    out = []
    for condition, table in tables.items():
        if not len(table):
            continue
        group = labels[table["row"].to_numpy()]
        for column in (c for c in table.columns if c != "row"):
            metric, channel = column.split("|")
            for name in ["all", *dict.fromkeys(group)]:
                values = table[column].to_numpy(float)[(group == name) | (name == "all")]
                interval = bootstrap_ci(values, statistic=np.mean, level=level, n_resamples=500, seed=seed)
                out.append(
                    {
                        "images": condition.images,
                        "cells": condition.cells,
                        "group": name,
                        "metric": metric,
                        "channel": channel,
                        "mean": interval.value,
                        "low": interval.low,
                        "high": interval.high,
                        "n": int(np.isfinite(values).sum()),
                    }
                )
    return pd.DataFrame(out)
