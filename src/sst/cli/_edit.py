"""``python -m sst edit``: edit a prepared object with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sst._settings import logger

from ._objects import read_object, write_object
from ._options import add_config

if TYPE_CHECKING:
    import argparse


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
    parser.add_argument("--batch-key", help="obs column of the slides or donors, from which it is learnt one at a time")
    parser.add_argument(
        "--store", type=Path, help="draw the images into this folder, block by block (default: as they fit)"
    )
    parser.add_argument("--key-added", default="edited", help="name of the slots that are written")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    import sst

    if args.out.exists():  # before the work, not after it
        msg = f"--out {args.out}: exists already; name another."
        raise FileExistsError(msg)
    adata = read_object(args.object)
    model = None if args.model is None else sst.models.load(args.model)
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
        model=model,
        key_added=args.key_added,
        seed=args.seed,
        store=args.store,
    )
    if model is not None:
        for key in (sst.models.image_before(model.registry.kind), args.key_added):
            sst.tl.morphology(adata, key=key)
    write_object(adata, args.out)
    logger.info("wrote %s", args.out)
    return 0
