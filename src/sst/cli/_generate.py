"""``python -m sst generate``: draw the images of an object's cells from their expression."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sst._settings import logger

from ._objects import check_new, read_object, write_object
from ._options import add_config

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser("generate", help="draw the images of cells from their expression")
    add_config(parser)
    parser.add_argument("object", type=Path, help="AnnData, .zarr or .h5ad")
    parser.add_argument("--model", type=Path, required=True, help="folder of a GAN, an editor or an inversion")
    parser.add_argument("--out", type=Path, required=True, help="the object with the images, a new .zarr or .h5ad")
    parser.add_argument("--layer", help="expression (default: X)")
    parser.add_argument(
        "--sources",
        default="own",
        metavar="own|train|OBJECT",
        help="what an editor turns: each cell's own crop, other training cells of the object, or cells of another one (default: %(default)s)",
    )
    parser.add_argument(
        "--neighbors", type=int, help="turn one of so many sources of the nearest expression (default: any)"
    )
    parser.add_argument("--n-samples", type=int, default=1, help="images of each cell (default: %(default)s)")
    parser.add_argument("--key-added", default="generated", help="name of the slot that is written")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    import sst

    check_new(args.out)  # before the work, not after it
    adata = read_object(args.object)
    sources = args.sources if args.sources in ("own", "train") else read_object(Path(args.sources))
    sst.tl.generate(
        adata,
        model=sst.models.load(args.model),
        layer=args.layer,
        sources=sources,
        neighbors=args.neighbors,
        n_samples=args.n_samples,
        key_added=args.key_added,
        seed=args.seed,
    )
    if args.n_samples == 1:
        sst.tl.morphology(adata, key=args.key_added)
    write_object(adata, args.out)
    logger.info("wrote %s", args.out)
    return 0
