"""``python -m sst edit``: edit a prepared object with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._settings import logger

from ._objects import check_new, read_object, write_object
from ._options import add_config
from ._plan import add_dry_run, free, rate, say, size, some_cells, span

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("edit", help="edit genes and make the images of the edited cells")
    add_config(parser)
    parser.add_argument("object", type=Path, help="AnnData, .zarr or .h5ad")
    parser.add_argument(
        "--model", type=Path, help="folder of a GAN, an editor or an inversion; without it expression alone is edited"
    )
    parser.add_argument("--out", type=Path, required=True, help="the edited object, a new .zarr or .h5ad")
    parser.add_argument("--genes", nargs="+", metavar="GENE", help="default: all genes")
    parser.add_argument("--groupby", help="obs column of the groups (default: the model's)")
    parser.add_argument("--source", help="edit this group's cells (default: every cell toward the other group)")
    parser.add_argument("--target", help="carry them toward this group")
    parser.add_argument("--method", default="ot", help="ot, mean, quantile, or scm, the paper's (default: %(default)s)")
    parser.add_argument("--strength", type=float, default=1.0, help="0: no edit, 1: the whole")
    parser.add_argument("--subset", metavar="QUERY", help="obs query, such as \"cellType == 'tumor_1'\"")
    parser.add_argument(
        "--part", choices=["own", "niche"], help="edit this half of each window's counts, leave the other"
    )
    parser.add_argument("--batch-key", help="obs column of the slides or donors, from which it is learnt one at a time")
    parser.add_argument(
        "--store", type=Path, help="draw the images into this folder, block by block (default: as they fit)"
    )
    parser.add_argument("--devices", nargs="+", metavar="DEVICE", help="that share the cells, such as cuda:0 cuda:1")
    parser.add_argument("--key-added", default="edited", help="name of the slots that are written")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    add_dry_run(parser)
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    import sst

    check_new(args.out)  # before the work, not after it
    adata = read_object(args.object)
    model = None if args.model is None else sst.models.load(args.model)
    if args.dry_run:
        return _say_plan(args, adata, model)
    sst.tl.edit(
        adata,
        args.genes,
        args.groupby,
        source=args.source,
        target=args.target,
        method=args.method,
        strength=args.strength,
        subset=args.subset,
        batch_key=args.batch_key,
        part=args.part,
        model=model,
        key_added=args.key_added,
        seed=args.seed,
        store=args.store,
        devices=args.devices,
    )
    if model is not None:
        for key in (sst.models.image_before(model.registry.kind), args.key_added):
            sst.tl.morphology(adata, key=key)
    write_object(adata, args.out)
    logger.info("wrote %s", args.out)
    return 0


def _say_plan(args: argparse.Namespace, adata: AnnData, model: Any) -> int:
    """Cells, disk, memory, time; drawing and measuring are tried on a few of the cells."""
    import sst
    from sst.tl._editing import EditRequest, pictures

    names = ("genes", "groupby", "source", "target", "method", "strength", "subset", "batch_key")
    request = EditRequest(**{name: getattr(args, name) for name in names}).with_model(model)
    edit = request.resolve(adata)
    rows = np.flatnonzero(edit.assign >= 0)
    genes = "all" if args.genes is None else str(len(edit.gene_names))
    expression = 4.0 * adata.n_obs * adata.n_vars  # an edit of all genes leaves few zeros
    expression *= 2 if args.genes is None else 1
    lines = {"cells": f"{len(rows)} of {adata.n_obs} ({', '.join(d.name for d in edit.directions)}), {genes} genes"}
    if model is None:
        lines |= {"disk": f"at most {size(expression)} beside the object, {free(args.out)}"}
        return say(**lines, memory=f"at most {size(expression)} of edited expression", time="not known")
    kind, image = sst.models.starts_from(model), pictures(model)
    before = adata.n_obs if args.subset is None else len(rows)  # where the crop is not what was there before
    slots, drawn = {"expression": (2, before + len(rows)), "code": (4, before + 3 * len(rows)), "crop": (1, len(rows))}[
        kind
    ]
    need, kept = drawn * image.bytes, slots * adata.n_obs * image.bytes
    some = some_cells(adata, rows)
    some.layers["tried"] = some.X.copy()
    options = sst.models.draw_options(model, source_layer=None) | {"layer": "tried", "progress": False}
    drawing = rate(lambda: model.generate(some, **options), some.n_obs)
    some.obsm["tried"] = model.generate(some, **options)
    measuring = rate(lambda: sst.tl.morphology(some, key="tried"), some.n_obs)
    passes = len({sst.models.image_before(model.registry.kind), args.key_added})
    whole = len(rows) if args.subset is not None else adata.n_obs
    seconds = {"drawing": drawn / drawing, "measuring": passes * whole / measuring}
    where = (
        f"drawn into {args.store}"
        if args.store is not None
        else "in memory if they fill less than a quarter of what is free"
    )
    lines |= {
        "pictures": f"{drawn} of {' x '.join(map(str, image.shape))}, {size(need)}, {where}",
        "disk": f"at most {size(kept + expression + (need if args.store is not None else 0))} beside the object, {free(args.out)}",
        "memory": f"at most {size(expression)} of edited expression, {size(0 if args.store is not None else need)} of pictures, and the model",
        "time": f"{span(sum(seconds.values()))}: drawing {span(seconds['drawing'])} ({drawing:.0f} cells a second), measuring "
        f"{span(seconds['measuring'])} ({measuring:.0f} a second), tried on {some.n_obs} cells, {model.device}; expression not known",
    }
    return say(**lines)
