"""``python -m sst train``: train on a prepared object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sst._files import new_file, new_folder
from sst._settings import logger

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "train",
        help="train a GAN, CLIP or inversion on a prepared object",
        description="The object is what sst.pp made: paired cells, rescaled and split. With several GPUs: torchrun -m sst train ...",
    )
    parser.add_argument("what", choices=["gan", "clip", "inversion"])
    parser.add_argument("object", type=Path, help="AnnData, .zarr or .h5ad")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--groupby", default="condition", help="obs column of the groups (default: %(default)s)")
    parser.add_argument("--preset", default="fast", help="paper, fast or demo (default: %(default)s)")
    parser.add_argument("--gan", type=Path, help="inversion: folder of the trained GAN")
    parser.add_argument("--clip", type=Path, help="inversion: folder of the trained CLIP")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-resume", action="store_true", help="refuse to go on from an earlier checkpoint in --out")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    import sst

    adata = read_object(args.object)
    common = {
        "preset": args.preset,
        "out": args.out,
        "iterations": args.iterations,
        "device": args.device,
        "seed": args.seed,
        "resume": not args.no_resume,
    }
    if args.what == "gan":
        sst.tl.train_gan(adata, groupby=args.groupby, **common)
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


def read_object(path: Path) -> AnnData:
    """Read an AnnData from ``.zarr`` (arrays stay on disk where that is supported) or ``.h5ad``."""
    import anndata as ad

    if not path.exists():
        msg = f"{path}: there is no such file or folder."
        raise FileNotFoundError(msg)
    return ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)


def write_object(adata: AnnData, path: Path) -> None:
    """Write an AnnData to a new ``.zarr`` or ``.h5ad``; an existing one is never overwritten."""
    if path.exists():
        msg = f"{path}: exists already; name another."
        raise FileExistsError(msg)
    if path.suffix == ".h5ad":
        with new_file(path) as draft:
            adata.write_h5ad(draft)
    else:
        with new_folder(path) as draft:
            adata.write_zarr(draft)
