"""``python -m sst train``: train on a prepared object."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._settings import logger

from ._objects import read_object
from ._options import add_config, add_set, changed
from ._plan import add_dry_run, bytes_of, free, most_memory, say, size, some_cells, span

_TRIED = 128  # cells of each group and part of the split that --dry-run trains on
_ITERATIONS, _SECONDS = 34, 20.0  # that it tries at most: the rarest phase comes every 16th

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from anndata import AnnData


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
        "--inputs",
        nargs="+",
        choices=["own", "niche"],
        help="gan, editor: read the cell's own counts and those of its niche apart (default: the window as one)",
    )
    parser.add_argument(
        "--preset", default="fast", help="paper (not of an editor), fast or demo (default: %(default)s)"
    )
    parser.add_argument("--gan", type=Path, help="inversion: folder of the trained GAN")
    parser.add_argument("--clip", type=Path, help="inversion: folder of the trained CLIP")
    parser.add_argument("--iterations", type=int, help="instead of the preset's")
    parser.add_argument("--device", help="torch device, such as cuda or cpu (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--no-resume", action="store_true", help="refuse to go on from an earlier checkpoint in --out")
    add_dry_run(parser)
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    import sst

    if args.inputs and args.what not in {"gan", "editor"}:
        msg = f"--inputs {' '.join(args.inputs)}: a GAN and an editor read them apart, {args.what} does not."
        raise ValueError(msg)
    adata = read_object(args.object)
    configs: dict[str, Any] = {
        "gan": sst.train.GANConfig,
        "editor": sst.train.EditorConfig,
        "clip": sst.train.CLIPConfig,
        "inversion": sst.train.InversionConfig,
    }
    config = changed(configs[args.what].preset(args.preset), args.changes)
    given: dict[str, Any] = {"batch_key": args.batch_key, "device": args.device, "seed": args.seed}
    given |= {} if args.what in {"clip", "inversion"} else {"groupby": args.groupby, "inputs": args.inputs}
    if args.what == "inversion":
        for name in ("gan", "clip"):
            if getattr(args, name) is None:
                msg = f"train inversion: name the trained model with --{name} FOLDER."
                raise ValueError(msg)
        given |= {"gan": args.gan, "clip": args.clip}
    train = partial(getattr(sst.tl, f"train_{args.what}"), **given)
    if args.dry_run:
        return _say_plan(args, adata, train, config)
    train(adata, config=config, out=args.out, iterations=args.iterations, resume=not args.no_resume)
    logger.info("saved %s", args.out)
    return 0


def _say_plan(args: argparse.Namespace, adata: AnnData, train: Callable[..., Any], config: Any) -> int:
    """Cells, disk, memory, time: a few iterations are run on a few cells, in a folder that is removed."""
    from sst._keys import SPLIT

    fit = config.fit
    iterations = args.iterations or fit.iterations
    crops = adata.obsm["crops"]
    column = adata.obs[SPLIT].astype(str) if SPLIT in adata.obs else None
    split = {"not split": adata.n_obs} if column is None else dict(column.value_counts())
    labels = adata.obs[args.groupby].astype(str) + ("" if column is None else column)
    rows = np.concatenate([np.flatnonzero(labels == label)[:_TRIED] for label in labels.unique()])
    quick = {f"fit__{name}_every": 0 for name in ("checkpoint", "evaluate", "sample")} | {"fit__log_every": 1}
    with tempfile.TemporaryDirectory() as folder:
        tried = train(
            some_cells(adata, np.sort(rows), len(rows)),
            config=config.replace(**quick, fit__iterations=min(_ITERATIONS, iterations), fit__max_seconds=_SECONDS),
            out=folder,
        )
        model = bytes_of(Path(folder))
        place = bytes_of(Path(folder) / "training")
    done = tried.history["seconds"].dropna()
    each = (done.iloc[-1] - done.iloc[0]) / (done.index[-1] - done.index[0]) if len(done) > 1 else float(done.iloc[0])
    last = model - place
    seconds = min(each * iterations, fit.max_seconds or np.inf)
    return say(
        cells=f"{adata.n_obs} ({', '.join(f'{k}: {v}' for k, v in split.items())}), {adata.n_vars} genes, {' x '.join(map(str, crops.shape[1:]))}",
        training=f"{args.what}, preset {args.preset}: {iterations:,} iterations of {fit.batch_size} cells"
        + (f", at most {span(fit.max_seconds)}" if fit.max_seconds else ""),
        disk=f"{size(last)} of model, {size(2 * place)} of checkpoints (the last and the best); {free(args.out)}",
        memory=f"{size(most_memory())} were held when it was tried; crops take {size(float(np.prod(crops.shape)))} more, or are streamed",
        time=f"{span(seconds)}: {each:.3g} s an iteration (of {len(done)} tried, {tried.device}), evaluations not counted",
    )
