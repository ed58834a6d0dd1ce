"""Every method on the same simulated cells, against their true counterfactuals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from sst._arguments import checked
from sst._settings import settings
from sst._validate import check_choice, check_range

from ._benchmarking import GAP, METHODS, NO_EDIT, Limit, Plan, Work, headline, helpers, leaderboard
from ._measuring import clusters_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Benchmark:
    """What :func:`benchmark` found.

    Attributes
    ----------
    rows
        One row a method, way of showing the edit, gene set, direction and feature.
    leaderboard
        One row a method and way of showing the edit.
    pictures
        Gene set -> method (``"real"``, ``"truth"``) -> images of a few held-out cells, uint8, n x c x h x w.
    genes
        The gene sets: ``set``, ``gene``, ``reliability``.
    features
        Gene set -> the feature that its true counterfactual moves most.
    controls
        Gene sets that cause nothing.
    about
        How it was made.
    possible
        What can be benchmarked -> whether each seed is another model.
    least_gap
        Standard deviations: under it a gap between the groups is no measure of what a null edit does.
    """

    rows: pd.DataFrame
    leaderboard: pd.DataFrame
    pictures: dict[str, dict[str, np.ndarray]]
    genes: pd.DataFrame
    features: dict[str, str]
    controls: tuple[str, ...]
    about: dict[str, object]
    possible: ClassVar[dict[str, bool]] = {name: not method.seedless for name, method in METHODS.items()}
    least_gap: ClassVar[float] = GAP


@checked
def benchmark(
    preset: str = "realistic",
    methods: Sequence[str] | None = None,
    *,
    seeds: int = 3,
    minutes: float = 5.0,
    iterations: int | None = None,
    clock: Literal["wall", "cpu"] = "wall",
    jobs: int = 1,
    out: str | Path = "sst_benchmark",
    latent: Sequence[bool] = (False, True),
    sets: Sequence[str] | None = None,
    n_cells: int | None = None,
    n_test: int = 300,
    show: int = 8,
    tissue_seed: int = 0,
    level: float = 0.95,
    n_resamples: int = 1000,
) -> Benchmark:
    """Train every method on the same cells of a simulated tissue, and measure its edits against the truth, cell by cell.

    Edits are made by optimal transport, fitted on training cells, and drawn for held-out fields of view, in both directions between the
    first and the last group. What is done is kept in ``out``: the same call goes on where an earlier one was cut off, or measures beside what is
    there a method more; several at once, of the same folder, share the work.

    Parameters
    ----------
    preset
        Of the tissue: ``"easy"``, ``"realistic"``, ``"confounded"`` (:class:`sst.datasets.TissueConfig`).
    methods
        ``"nearest"``, ``"nearest_weighted"``, ``"ridge"``, ``"lasso"``, ``"morph"``, ``"morph_lasso"`` (:func:`sst.tl.fit_rival`), ``"gan"``, ``"inversion"``
        and ``"editor"`` (preset ``"demo"``), ``"gan_paper"`` (the published inputs, losses and averages, no slides, at the sizes of ``"demo"``); ``None``: all. Not editing is always
        among them.
    seeds
        Models of each method, with seeds of their own (rivals have one).
    minutes
        Training of each model, at most; an inversion's are shared by its generator, its encoder of pairs and itself.
    iterations
        Of each network, at most (``None``: its preset's).
    clock
        What the minutes are, and the seconds in the tables: ``"wall"``, or ``"cpu"`` (:class:`sst.train.FitConfig`), which is fair on a busy machine.
    jobs
        Processes that train, and then measure, side by side.
    out
        Folder of what is done: ``models/``, each model with a note of what it was trained on, and ``measured/``.
    latent
        Ways of showing an edit: as it is, or ``latent`` as in :func:`sst.tl.edit`.
    sets
        Gene sets (``None``: all): ``"all"``, ``"causal"``, one for each causal feature, ``"programme"``, ``"unrelated"``, ``"hidden"``.
    n_cells
        Cells of each slide (``None``: the preset's).
    n_test
        Held-out cells of each group that are measured, at most.
    show
        Cells whose images are kept.
    tissue_seed
        Of the tissue and the split.
    level, n_resamples
        Of the intervals, which are over fields of view and seeds together.

    Returns
    -------
    Tables and pictures; :func:`sst.report.write_leaderboard` makes a page of them.

    Raises
    ------
    ValueError
        A method, preset or gene set is not known; ``out`` holds models of other cells or settings, which the message names.
    """
    chosen = tuple(dict.fromkeys(METHODS if methods is None else methods))
    for method in chosen:
        check_choice("methods", method, list(METHODS))
    check_range("seeds", seeds, low=1)
    check_range("minutes", minutes, low=0, open_low=True)
    check_range("jobs", jobs, low=1, high=1024)
    check_choice("clock", clock, ("wall", "cpu"))
    plan = Plan(
        folder=str(out),
        preset=preset,
        methods=chosen,
        seeds=seeds,
        limit=Limit(minutes, iterations, clock),
        latent=tuple(latent),
        sets=None if sets is None else tuple(sets),
        n_cells=n_cells,
        n_test=n_test,
        show=show,
        tissue_seed=tissue_seed,
        level=level,
        n_resamples=n_resamples,
    )
    with helpers(plan, jobs - 1):
        work = Work(plan)
        work.do(show_progress=settings.progress)
    return _gathered(work)


def _gathered(work: Work) -> Benchmark:
    """The tables and pictures of work that is done."""
    cells, plan = work.cells, work.plan
    rows: list[dict[str, Any]] = []
    genes: list[dict[str, Any]] = []
    pictures: dict[str, dict[str, np.ndarray]] = {}
    codes = {note["code"] for method in plan.methods for note in work.notes(method)}
    for name in cells.sets:
        pictures[name] = {}
        for method in (NO_EDIT, *plan.methods):
            found, images, made_by = work.measured(name, method)  # type: ignore[misc]
            codes.add(made_by)
            seconds = float(np.mean([note["seconds"] for note in work.notes(method)] or [0.0]))
            rows += [row | {"seconds": seconds} for row in found["rows"]]
            pictures[name] |= images
            genes += [{"set": name, "gene": g, "reliability": value} for g, value in found["reliability"].items()]
    table, limit, test = pd.DataFrame(rows), plan.limit, cells.test
    trained = {m: [note["iterations"] for note in work.notes(m) if note["iterations"]] for m in plan.methods}
    about: dict[str, object] = {
        "tissue": str(cells.tissue).splitlines()[0],
        "preset": plan.preset,
        "training cells": int((~test).sum()),
        "held-out cells measured": int(test.sum()),
        "fields of view measured": len(set(clusters_of(cells.adata[test], None))),
        "seeds": plan.seeds,
        "training of a model, at most": f"{limit.minutes:g} min ({limit.clock})"
        + ("" if limit.iterations is None else f", {limit.iterations} iterations"),
        "operator": "ot",
        "code": ", ".join(sorted(codes)),
    }
    if done := "; ".join(f"{m} {', '.join(map(str, counts))}" for m, counts in trained.items() if counts):
        about["iterations done"] = done
    board, known = leaderboard(table, cells.controls), pd.DataFrame(genes)
    return Benchmark(table, board, pictures, known, headline(table), cells.controls, about)
