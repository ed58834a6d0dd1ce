"""``python -m sst reproduce``: the paper's experiments, from the released files to every table and figure."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst._files import read_json, write_json
from sst._settings import logger

from ._evaluate import run_evaluation
from ._prepare import write_joined
from ._reproduce_plan import format_plan, make_plan
from ._studies import STUDIES, Study, chosen_genes, read_slide, subtype

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData

STAGES = ("prepare", "gan", "clip", "inversion", "evaluate")
NEEDS = {
    "gan": ("prepare",),
    "clip": ("prepare",),
    "inversion": ("prepare", "gan", "clip"),
    "evaluate": ("prepare", "gan", "clip"),
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "reproduce",
        help="the paper's experiments on the public data, stage by stage",
        description="Reads the released files, cuts paired cells, trains the three networks, evaluates, and writes a report. Every "
        "stage takes up where it stopped; a finished one is not done again. A plan of time, disk and memory comes first.",
        epilog="; ".join(f"{s.name}: {s.about}" for s in STUDIES.values()),
    )
    parser.add_argument("study", choices=list(STUDIES), help="which of the two studies")
    parser.add_argument("--data", type=Path, required=True, help="folder with the released files, as folders or zips")
    parser.add_argument("--out", type=Path, help="folder of the results (default: <data>/sst-<study>)")
    parser.add_argument(
        "--stage", choices=STAGES, action="append", help="only this stage; repeat for several (default: all)"
    )
    parser.add_argument("--plan", action="store_true", help="print the plan and stop")
    parser.add_argument(
        "--preset", choices=["paper", "fast", "demo"], default="paper", help="of the trainings (default: %(default)s)"
    )
    parser.add_argument("--iterations", type=int, help="of each training, instead of the preset's")
    parser.add_argument("--genes", nargs="+", metavar="GENE", help="instead of the paper's")
    parser.add_argument("--size", type=int, help="window in px, instead of the paper's")
    parser.add_argument("--output-size", type=int, help="side of the crops, instead of the paper's 128")
    parser.add_argument("--border", type=int, help="px left out at low edges, instead of the paper's")
    parser.add_argument("--tile-size", type=int, help="px of the tiles that are held out (Xenium)")
    parser.add_argument("--features", help="feature space of distances: clip (default), inception, inception:PATH, ...")
    parser.add_argument("--n-max", type=int, default=50_000, help="most cells in a sample (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=4, help="samples that a distance is measured on")
    parser.add_argument("--lpips-weights", help="AlexNet's weights for LPIPS: a path, or 'download'")
    parser.add_argument("--device", help="torch device, such as cuda or cpu (default: a GPU if there is one)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    study = _adapted(STUDIES[args.study], args)
    inputs = study.find(args.data)
    out = args.out or args.data / f"sst-{study.name}"
    stages = [s for s in STAGES if args.stage is None or s in args.stage]
    plan = make_plan(
        study, inputs, out, preset=args.preset, iterations=args.iterations, repeats=args.repeats, n_max=args.n_max
    )
    done = [s for s in STAGES if _is_done(out, s)]
    sys.stdout.write(format_plan(plan, STAGES if args.plan else stages, done) + "\n")
    sys.stdout.flush()
    if args.plan:
        return 0
    if plan["disk_needed_gb"] > plan["disk_free_gb"] and "prepare" not in done:
        logger.warning("the disk may not hold all of it: choose --out on a larger one.")
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(out, study, args)
    for stage in stages:
        if _is_done(out, stage):
            logger.info("%s: done before", stage)
            continue
        missing = [s for s in NEEDS.get(stage, ()) if not _is_done(out, s)]
        if missing:
            msg = f"--stage {stage} needs {missing} to be done first."
            raise ValueError(msg)
        started = time.perf_counter()
        logger.info("%s ...", stage)
        {"prepare": _prepare, "evaluate": _evaluate}.get(stage, _train)(stage, study, inputs, out, args)
        note = {"stage": stage, "seconds": round(time.perf_counter() - started, 1)}
        write_json(out / f"{stage}.json", note)
    logger.info("results: %s", out)
    return 0


def _adapted(study: Study, args: argparse.Namespace) -> Study:
    crop = dict(study.crop)
    for name in ("size", "output_size", "border"):
        if getattr(args, name) is not None:
            crop[name] = getattr(args, name)
    split = dict(study.split)
    if args.tile_size is not None and split.get("by") == "tile":
        split["tile_size"] = args.tile_size
    return replace(study, crop=crop, split=split)


def _is_done(out: Path, stage: str) -> bool:
    return (out / f"{stage}.json").exists()


def _same_settings(out: Path, study: Study, args: argparse.Namespace) -> None:
    """One folder is one experiment: other settings than before are refused, by name."""
    names = ("preset", "iterations", "seed")
    now = {"study": study.name, "crop": dict(study.crop), "split": dict(study.split)} | {
        n: getattr(args, n) for n in names
    }
    now = json.loads(json.dumps(now))
    path = out / "settings.json"
    if path.exists():
        before = read_json(path)
        other = {k: (before.get(k), v) for k, v in now.items() if before.get(k) != v}
        if other:
            shown = "; ".join(f"{k}: {a!r} before, {b!r} now" for k, (a, b) in other.items())
            msg = f"--out {out} holds another experiment ({shown}). Choose another folder."
            raise ValueError(msg)
    else:
        write_json(path, now)


def _prepare(stage: str, study: Study, inputs: dict[str, Path], out: Path, args: argparse.Namespace) -> None:
    """Read both slides, cut paired cells into stores, join, rescale, hold out, write one store."""
    import sst

    del stage
    slides: dict[str, AnnData] = {}
    for slide in ("normal", "tumor"):
        store = out / "crops" / f"{slide}.zarr"
        if not store.exists():
            store.parent.mkdir(parents=True, exist_ok=True)
            sdata = read_slide(study, slide, inputs, out / "unpacked")
            sst.pp.crop_cells(sdata, store=store, sample=slide, **study.crop)
        slides[slide] = sst.io.open_store(store)
    for slide, cells in slides.items():
        cells.obs["condition"] = slide
    write_joined(slides, out / "prepared.zarr", groupby="condition", split=study.split, seed=args.seed)


def _train(stage: str, study: Study, inputs: dict[str, Path], out: Path, args: argparse.Namespace) -> None:
    import sst

    del study, inputs
    adata = sst.io.open_store(out / "prepared.zarr")
    models = out / "models"
    common: dict[str, Any] = {
        "preset": args.preset,
        "out": models / stage,
        "iterations": args.iterations,
        "device": args.device,
        "seed": args.seed,
    }
    if stage == "gan":
        sst.tl.train_gan(adata, groupby="condition", use="best", **common)  # the paper's is that of smallest FID
    elif stage == "clip":
        sst.tl.train_clip(adata, embed=False, **common)
    else:
        sst.tl.train_inversion(adata, gan=models / "gan", clip=models / "clip", **common)


def _evaluate(stage: str, study: Study, inputs: dict[str, Path], out: Path, args: argparse.Namespace) -> None:
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    import sst

    del stage, inputs
    adata = sst.io.open_store(out / "prepared.zarr")
    models = [sst.models.load(out / "models" / "gan")]
    if _is_done(out, "inversion"):
        models.append(sst.models.load(out / "models" / "inversion"))
    else:
        logger.warning("there is no inversion yet: evaluating generated images only.")
    mpl.use("Agg")
    run_evaluation(
        adata,
        models,
        out=out / "evaluation",
        method="scm",
        genes=chosen_genes(study, adata, args.genes),
        subset=subtype(study, adata),
        groupby="condition",
        features=args.features if args.features not in {None, "clip"} else sst.models.load(out / "models" / "clip"),
        n_max=args.n_max,
        repeats=args.repeats,
        lpips_weights=args.lpips_weights,
        device=args.device,
        seed=args.seed,
        title=f"{study.name}: {study.about}",
    )
    figures = out / "evaluation" / "figures"
    for model in models:
        name = f"training-{model.registry.kind}.pdf"
        sst.pl.training(model, save=figures / name)
    plt.close("all")
