"""``python -m sst train``: train on a prepared object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst._settings import logger

from ._objects import read_object
from ._options import add_config, add_set, changed

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a GAN, an editor, CLIP or an inversion on a prepared object",
        description="The object is what sst.pp made: paired cells, rescaled and split. With several GPUs: torchrun -m sst train ...",
    )
    add_config(parser)
    add_set(parser)
    parser.add_argument("what", choices=["gan", "editor", "clip", "inversion"], help="what is trained")
    parser.add_argument("object", type=Path, help="AnnData, .zarr or .h5ad")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--groupby", default="condition", help="obs column of the groups (default: %(default)s)")
    parser.add_argument("--batch-key", help="obs column of the slides or donors, which are then kept apart")
    parser.add_argument(
        "--preset", default="fast", help="paper (not of an editor), fast or demo (default: %(default)s)"
    )
    parser.add_argument("--gan", type=Path, help="inversion: folder of the trained GAN")
    parser.add_argument("--clip", type=Path, help="inversion: folder of the trained CLIP")
    parser.add_argument("--iterations", type=int, help="instead of the preset's")
    parser.add_argument("--device", help="torch device, such as cuda or cpu (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--no-resume", action="store_true", help="refuse to go on from an earlier checkpoint in --out")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    import sst

    adata = read_object(args.object)
    configs: dict[str, Any] = {
        "gan": sst.train.GANConfig,
        "editor": sst.train.EditorConfig,
        "clip": sst.train.CLIPConfig,
        "inversion": sst.train.InversionConfig,
    }
    common = {
        "config": changed(configs[args.what].preset(args.preset), args.changes) if args.changes else None,
        "preset": args.preset,
        "batch_key": args.batch_key,
        "out": args.out,
        "iterations": args.iterations,
        "device": args.device,
        "seed": args.seed,
        "resume": not args.no_resume,
    }
    if args.what == "gan":
        sst.tl.train_gan(adata, groupby=args.groupby, **common)
    elif args.what == "editor":
        sst.tl.train_editor(adata, groupby=args.groupby, **common)
    elif args.what == "clip":
        sst.tl.train_clip(adata, **common)
    else:
        for name in ("gan", "clip"):
            if getattr(args, name) is None:
                msg = f"train inversion: name the trained model with --{name} FOLDER."
                raise ValueError(msg)
        sst.tl.train_inversion(adata, gan=args.gan, clip=args.clip, **common)
    logger.info("saved %s", args.out)
    return 0
