"""``python -m sst benchmark``: every method against the truth."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sst._files import new_file, write_text
from sst._settings import logger

from ._plan import add_dry_run, free, say, span

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "benchmark",
        help="train and measure every method, and rivals, on a simulated tissue whose causes are known",
        description="Writes leaderboard.csv (a row a method, gene set, direction and feature), summary.csv, genes.csv, leaderboard.md, leaderboard.html and pictures/. "
        "Cut off, the same command goes on where it was; what is in --out, models and measures, is used again.",
    )
    parser.add_argument(
        "--preset", default="realistic", help="tissue: easy, realistic or confounded (default: %(default)s)"
    )
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--sets", nargs="+", help="gene sets (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="models of each method (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=5.0, help="training of each model, at most (default: %(default)s)"
    )
    parser.add_argument("--iterations", type=int, help="of each network, at most")
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="what the minutes are (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the work (default: %(default)s)")
    parser.add_argument("--cells", type=int, help="cells of each slide (default: the preset's)")
    parser.add_argument("--test-cells", type=int, default=300, help="held-out cells of each group that are measured")
    parser.add_argument(
        "--latent", choices=["both", "on", "off"], default="both", help="how edits are shown to the models"
    )
    parser.add_argument("--tissue-seed", type=int, default=0, help="of the tissue")
    parser.add_argument("--out", type=Path, default=Path("sst_benchmark"), help="results (default: %(default)s)")
    add_dry_run(parser)
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    import sst

    if args.dry_run:
        return _say_plan(args)
    found = sst.tl.benchmark(
        args.preset,
        args.methods,
        seeds=args.seeds,
        minutes=args.minutes,
        iterations=args.iterations,
        clock=args.clock,
        jobs=args.jobs,
        out=args.out,
        latent={"both": (False, True), "on": (True,), "off": (False,)}[args.latent],
        sets=args.sets,
        n_cells=args.cells,
        n_test=args.test_cells,
        tissue_seed=args.tissue_seed,
    )
    write_text(args.out / "leaderboard.csv", found.rows.to_csv(index=False, float_format="%.4g"))
    write_text(args.out / "summary.csv", found.leaderboard.to_csv(index=False, float_format="%.4g"))
    write_text(args.out / "genes.csv", found.genes.to_csv(index=False, float_format="%.4g"))
    write_text(
        args.out / "leaderboard.md",
        sst.report.leaderboard_text(found, shlex.join(["python", "-m", "sst", *args.typed])),
    )
    for name, rows in found.pictures.items():
        with new_file(args.out / "pictures" / f"{name}.png") as draft:
            sst.report.leaderboard_figure(rows).savefig(draft, dpi=110)
    sst.report.write_leaderboard(found, args.out / "leaderboard.html")
    sys.stdout.write(sst.report.markdown(found.leaderboard) + "\n")
    logger.info("done: %s", args.out / "leaderboard.html")
    return 0


def _say_plan(args: argparse.Namespace) -> int:
    """Methods and the time that training may take at most."""
    from sst.tl import Benchmark

    several = Benchmark.possible
    models = {name: args.seeds if several.get(name) else 1 for name in args.methods or several}
    return say(
        models=", ".join(f"{name} x {count}" for name, count in models.items()),
        disk=f"models and pages, some hundred MB at most; {free(args.out)}",
        time=f"training {span(sum(models.values()) * args.minutes * 60 / args.jobs)} at most; measuring not known",
    )
