"""What ``python -m sst evaluate`` would do and need."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ._plan import free, rate, say, size, some_cells, span

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData

_MEASURED = 5000  # cells of each group whose nuclei are measured, unless sst.tl.evaluate is told otherwise


def say_plan(args: argparse.Namespace, adata: AnnData) -> int:
    """Conditions, cells, disk, memory, time; drawing, features and outlines of nuclei are tried on a few cells."""
    import sst
    from sst.tl._evaluating import CONTROLS, Evaluation, EvaluationOptions

    n_measured = min(_MEASURED, args.n_max)
    options = EvaluationOptions(
        **{
            name: getattr(args, name)
            for name in ("method", "n_max", "repeats", "lpips_weights", "device", "seed", "batch_key")
        },
        top_k=1,
        layer=None,
        metrics=("frechet",),
        controls=CONTROLS,
        n_measured=n_measured,
        nucleus_channel=None,
        level=0.95,
        batch_size=None,
    )
    evaluation = Evaluation.plan(
        adata,
        options,
        model=[sst.models.load(folder) for folder in args.model],
        genes=args.genes,
        subset=args.subset,
        groupby=args.groupby,
        target=args.target,
        features=args.features if args.clip is None else sst.models.load(args.clip),
    )
    some = some_cells(adata, np.flatnonzero(evaluation.test))
    some.layers["tried"] = some.X.copy()
    measuring = rate(lambda: sst.tl.morphology(some, n_jobs=1), some.n_obs)
    looking = rate(lambda: evaluation.space(some.obsm["crops"]), some.n_obs)
    drawing = {}
    for name, model in evaluation.models.items():
        given = sst.models.draw_options(model, source_layer=None) | {"layer": "tried", "progress": False}
        drawing[name] = rate(partial(model.generate, some, **given), some.n_obs)
    each: dict[str, float] = {}  # cells that pass in a condition: those of all draws, each once
    for name, n in evaluation.n.items():
        sizes = [len(rows) for rows in evaluation.rows(name).values()]
        each[name] = sum(m * (1 - (1 - n / m) ** args.repeats) for m in sizes)
    drawn = sum(each[c.cells] for c in evaluation.conditions)
    seconds = sum(each[c.cells] * (1 / drawing[c.images] + 1 / looking) for c in evaluation.conditions)
    seconds += sum(min(each[c.cells], 2 * n_measured) / measuring for c in evaluation.conditions)
    rates = ", ".join(f"{name} {value:.0f}" for name, value in drawing.items())
    return say(
        cells=f"{int(evaluation.test.sum())} held out of {adata.n_obs}; samples of "
        + ", ".join(f"{n} of {name}" for name, n in evaluation.n.items())
        + f", {args.repeats} times",
        conditions=f"{len(evaluation.conditions)} ({', '.join(c.name for c in evaluation.conditions)}), {drawn:,.0f} images in all, none kept",
        disk=f"tables and figures, some MB; {free(args.out)}",
        memory=f"{size(4.0 * adata.n_obs * adata.n_vars * 2)} at most of edited expression, features ({evaluation.space.name}) and the models",
        time=f"at least {span(seconds)}: cells a second, tried on {some.n_obs}: drawing {rates}, features {looking:.0f}, nuclei {measuring:.0f}; "
        "distances, edits of expression and the report not known",
    )
