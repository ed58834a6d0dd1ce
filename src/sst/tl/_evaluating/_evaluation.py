"""An evaluation: cells, models, edits and conditions, and how each condition is made and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst import _keys
from sst._settings import logger, settings
from sst._validate import (
    check_choice,
    check_groups,
    check_key,
    check_range,
    describe_options,
    get_counts,
    resolve_subset,
)
from sst.tl._editing import EditRequest, check_scale, run_edit
from sst.tl._fit_rival import fit_rival
from sst.tl._measuring import (
    METRICS,
    NucleusView,
    check_groupby,
    clusters_of,
    expression_hash,
    get_images,
    held_out,
    image_hash,
    resolve_features,
    row_reader,
    without_slots,
)

from ._conditions import Reals, maker, measure_condition, summarise_distances, summarise_measures, summarise_quality
from ._plan import CONTROLS, Condition, conditions_of, gene_sets, hash_of, image_models

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from sst.metrics import FeatureSpace

    from ._plan import Folder


@dataclass(frozen=True)
class EvaluationOptions:
    """How much is measured, and how; :func:`sst.tl.evaluate` says what each means."""

    method: str
    top_k: int | None
    layer: str | None
    n_max: int
    repeats: int
    metrics: Sequence[str]
    controls: Sequence[str]
    n_measured: int
    lpips_weights: str | Path | None
    nucleus_channel: str | int | None
    level: float
    seed: int
    batch_size: int | None
    device: str | None
    batch_key: str | None = None

    def __post_init__(self) -> None:
        if not len(self.metrics):
            msg = f"metrics={self.metrics!r}: at least one is needed. Possible: {list(METRICS)}."
            raise ValueError(msg)
        for control in self.controls:
            check_choice("control", control, CONTROLS)
        for metric in self.metrics:
            check_choice("metric", metric, METRICS)
        for name in ("n_max", "n_measured"):
            check_range(name, getattr(self, name), low=2)
        check_range("repeats", self.repeats, low=1)


@dataclass(frozen=True)
class Evaluation:
    """Everything that decides the result.

    Attributes
    ----------
    table, options
        The object; how it is measured.
    models
        Kind of images -> model.
    groupby, labels, test
        Column of the groups, each cell's group, the cells that are measured.
    masks
        Name of a choice of cells -> its cells; edits of these are learnt from these.
    edits
        Name -> genes (``None``: all).
    space
        Where distances are measured.
    target
        Group that the others are edited toward; ``None``: each of two toward the other.
    """

    table: AnnData
    options: EvaluationOptions
    models: dict[str, Any]
    groupby: str
    labels: np.ndarray
    test: np.ndarray
    masks: dict[str, np.ndarray]
    edits: dict[str, list[str] | None]
    space: FeatureSpace
    target: str | None = None

    @classmethod
    def plan(
        cls,
        table: AnnData,
        options: EvaluationOptions,
        *,
        model: Any,
        genes: Any,
        subset: Any,
        groupby: Any,
        features: Any,
        target: str | None = None,
        rival: str | None = None,
    ) -> Self:
        """Look everything up in an object; errors name what is missing."""
        get_images(table, _keys.CROPS)
        models = image_models(table, model)
        for one in models.values():
            one.registry.check(table, layer=options.layer)
        groupby = groupby or next((g for m in models.values() if (g := getattr(m.registry, "groupby", ""))), None)
        groupby = check_groupby(table, groupby)
        groups = check_groups(table, groupby)
        if target is not None:
            check_choice("target", target, groups)
        elif len(groups) > 2:
            msg = f"obs[{groupby!r}] has {len(groups)} groups: say which is the target=. {describe_options(groups)}"
            raise ValueError(msg)
        if options.batch_key is not None:
            check_key(table, "obs", options.batch_key, name="batch_key")
            check_groups(table, options.batch_key)
        if rival is not None:
            check_choice("rival", rival, ("morph", "morph_lasso", "nearest", "nearest_weighted"))
            fitted = fit_rival(
                table,
                rival,
                groupby=groupby,
                nucleus_channel=options.nucleus_channel,
                layer=options.layer,
                seed=options.seed,
            )
            models.setdefault(fitted.images, fitted)
        test = held_out(table)
        if test.sum() < 2:
            msg = f"{int(test.sum())} held-out cells (obs['split']): at least two are needed."
            raise ValueError(msg)
        masks = {"all": np.ones(table.n_obs, bool)}
        if subset is not None:
            masks["subset"] = resolve_subset(table, subset)
        counts = get_counts(table, options.layer)
        for one in models.values():
            check_scale(one, counts, options.layer)
        learn = ~test if (~test).any() else test
        edits = gene_sets(table, genes, options.controls, counts, learn=learn, seed=options.seed)
        labels = table.obs[groupby].astype(str).to_numpy()
        measured = np.flatnonzero(test & np.isin(labels, groups))
        space = resolve_features(table, features, measured, device=options.device)
        made = cls(table, options, models, groupby, labels, test, masks, edits, space, target)
        for name, count in made.n.items():
            if count < 2:
                sizes = {g: len(r) for g, r in made.rows(name).items()}
                msg = f"cells={name!r}: held-out cells of each group are {sizes}; at least 4 are needed."
                raise ValueError(msg)
        return made

    @property
    def _counts(self) -> Any:
        return self.table.X if self.options.layer is None else self.table.layers[self.options.layer]

    def rows(self, cells: str) -> dict[str, np.ndarray]:
        """Measured rows of each group."""
        own = self.masks[cells] & self.test
        return {g: np.flatnonzero(own & (self.labels == g)) for g in check_groups(self.table, self.groupby)}

    @property
    def n(self) -> dict[str, int]:
        """Size of a sample of each choice of cells."""
        return {c: min([self.options.n_max, *(len(r) // 2 for r in self.rows(c).values())]) for c in self.masks}

    @property
    def conditions(self) -> list[Condition]:
        """What is made and measured."""
        return conditions_of(list(self.models), list(self.edits), list(self.masks), self.options.controls)

    @property
    def params(self) -> dict[str, Any]:
        """What is noted, and what a second call must share to take up where the first stopped."""
        o, table = self.options, self.table
        return {
            "groupby": self.groupby,
            "target": self.target,
            "method": o.method,
            "top_k": o.top_k,
            "n_max": o.n_max,
            "n": self.n,
            "repeats": o.repeats,
            "metrics": list(o.metrics),
            "features": self.space.name,
            "controls": list(o.controls),
            "n_measured": o.n_measured,
            "layer": o.layer,
            "level": o.level,
            "batch_key": o.batch_key,
            "seed": o.seed,
            "genes": {name: [] if value is None else value for name, value in self.edits.items()},
            "expression": expression_hash(self._counts),
            "crops": image_hash(table.obsm[_keys.CROPS]),
            "models": {kind: str(m.hash) for kind, m in self.models.items()},
            "cells": {c: hash_of(m) for c, m in self.masks.items()},
            "objects": hash_of([*map(str, table.obs_names[:: max(1, table.n_obs // 1000)]), table.n_obs, table.n_vars]),
        }

    @property
    def measuring(self) -> NucleusView:
        """How nuclei are measured."""
        return NucleusView.of(self.table, self.options.nucleus_channel)

    def run(self, folder: Folder) -> dict[str, pd.DataFrame]:
        """Make and measure every condition, or take it from the folder; the tables of the evaluation."""
        o = self.options
        found: dict[Condition, dict[str, pd.DataFrame]] = {}
        reals: dict[str, Reals] = {}
        light = without_slots(self.table, o.layer)
        bar = tqdm(self.conditions, desc="evaluate", disable=not settings.progress)
        for condition in bar:
            bar.set_postfix_str(condition.name)
            if condition.cells not in reals:
                reals[condition.cells] = self._reals(condition.cells)
            done = folder.load(condition.name)
            if done is None:
                done = self._measure(condition, light, reals[condition.cells])
                folder.save(condition.name, done)
            else:
                logger.info("%s: taken from %s", condition.name, folder.path)
            found[condition] = done
        return self._summarise(found, reals)

    def _reals(self, cells: str) -> Reals:
        o = self.options
        return Reals(
            self.table,
            self.rows(cells),
            n=self.n[cells],
            repeats=o.repeats,
            seed=o.seed,
            space=self.space,
            n_measured=o.n_measured,
            view=self.measuring,
        )

    def _measure(self, condition: Condition, light: AnnData, reals: Reals) -> dict[str, pd.DataFrame]:
        """Edit, if the condition is one of an edit, and measure its images."""
        o = self.options
        if condition.edit in self.edits:
            self._edit(light, condition)
        make = maker(
            self.models[condition.images],
            light,
            condition,
            layer=_keys.EDITED if condition.edit in self.edits else o.layer,
            source_layer=o.layer,
            seed=o.seed,
            batch_size=o.batch_size,
        )
        rebuilt = condition.images == "reconstructed" and condition.edit == "none"
        return measure_condition(
            condition,
            make,
            reals,
            metrics=o.metrics,
            view=self.measuring,
            device=o.device,
            compare=row_reader(self.table.obsm[_keys.CROPS]) if rebuilt else None,
            lpips_weights=o.lpips_weights,
        )

    def _edit(self, light: AnnData, condition: Condition) -> None:
        """Edit the held-out cells' expression; learn from the training cells of the same choice."""
        mask = self.masks[condition.cells]
        request = EditRequest(
            genes=self.edits[condition.edit],
            groupby=self.groupby,
            target=self.target,
            method=self.options.method,
            top_k=self.options.top_k,
            subset=mask & self.test,
            layer=self.options.layer,
            fit_subset=None if mask.all() else mask,
            batch_key=self.options.batch_key,
        )
        run_edit(light, request, model=None, key=_keys.EDITED)

    def _summarise(
        self, found: Mapping[Condition, dict[str, pd.DataFrame]], reals: Mapping[str, Reals]
    ) -> dict[str, pd.DataFrame]:
        level, seed = self.options.level, self.options.seed
        raw = pd.concat([f["distances"] for f in found.values()])
        measures = {c: f["measures"] for c, f in found.items()}
        quality = {c: f.get("quality", pd.DataFrame()) for c, f in found.items()}
        key = self.options.batch_key
        donors = None if key is None else self.table.obs[key].astype(str).to_numpy()
        fields = clusters_of(self.table, None)
        if self.target is not None:  # its own cells are not edited
            raw = raw[(raw["edit"] == "none") | (raw["source"] != self.target)]
        morphology, each = summarise_measures(
            measures, reals, self.labels, fields, donors, target=self.target, level=level, seed=seed
        )
        return {
            "distances": summarise_distances(raw, self.n, self.space.name, level),
            "morphology": morphology,
            "donors": each,
            "reconstruction": summarise_quality(quality, self.labels, level=level, seed=seed),
        }
