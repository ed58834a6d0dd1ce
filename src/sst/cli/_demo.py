"""``python -m sst demo``: from a vendor's folder to edited cells, measured and drawn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from sst._files import new_folder, write_json
from sst._settings import logger

if TYPE_CHECKING:
    import argparse

    from ._demo_input import DemoInput

#: Obsm keys of the three edits; the all-genes edit has the contract's name.
EDITS = {"all": "edited", "chosen": "edited_chosen", "null": "edited_null"}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="the whole path on simulated or real slides: read, crop, train, edit, measure, report",
        description="Without --data, two slides are simulated, written in the CosMx layout and read back; no download.",
    )
    parser.add_argument("--data", nargs="+", type=Path, metavar="FOLDER", help="one or two CosMx or Xenium folders")
    parser.add_argument("--out", type=Path, default=Path("sst_demo"), help="results (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", type=int, default=9000, help="cells a simulated slide (default: %(default)s)")
    parser.add_argument(
        "--train-seconds", type=float, default=None, help="limit of the training (default: by the data)"
    )
    parser.add_argument("--iterations", type=int, default=None, help="limit of the training in steps")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    out: Path = args.out
    if (out / "metrics.json").exists():
        msg = f"--out {out}: holds the results of an earlier run; name another folder or remove it."
        raise ValueError(msg)
    out.mkdir(parents=True, exist_ok=True)

    from ._demo_input import from_folders, simulated

    if args.data:
        data = from_folders(args.data, out=out, seed=args.seed)
    else:
        data = simulated(out=out, seed=args.seed, n_cells=args.cells)
    seconds = args.train_seconds if args.train_seconds is not None else data.train_seconds
    metrics = run_demo(data, out=out, seed=args.seed, seconds=seconds, iterations=args.iterations, started=started)
    logger.info(
        "done in %.0f s: %s, %s, %s", metrics["wall_s"], out / "report.html", out / "metrics.json", out / "edited.zarr"
    )
    return 0


def run_demo(
    data: DemoInput, *, out: Path, seed: int, seconds: float | None, iterations: int | None, started: float
) -> dict:
    """Train on the paired cells, edit them three ways, measure, and write everything into ``out``."""
    import sst

    from ._demo_input import METHOD
    from ._demo_measure import measure
    from ._demo_report import write

    adata = data.adata
    logger.info("training on %d cells ...", int((adata.obs["split"] == "train").sum()))
    gan = sst.tl.train_gan(
        adata,
        groupby=data.groupby,
        preset="demo",
        out=out / "model",
        max_seconds=seconds,
        iterations=iterations,
        seed=seed,
    )
    genes = {"all": None, "chosen": data.chosen, "null": data.null}
    for name, key in EDITS.items():
        logger.info("editing: %s genes ...", name)
        sst.tl.edit(adata, genes=genes[name], groupby=data.groupby, model=gan, method=METHOD, seed=seed, key_added=key)
    test = (adata.obs["split"] == "test").to_numpy()
    for key in ("crops", "generated", *EDITS.values()):
        sst.tl.morphology(adata, key=key, subset=test)
    sst.tl.distances(adata, groupby=data.groupby, subset=test)
    sst.tl.confound_report(adata, data.groupby, seed=seed)

    metrics = measure(data, edits=EDITS)
    metrics |= {"steps": int(gan.history.index.max()), "wall_s": 0.0}
    write(data, gan, metrics, out=out, edits=EDITS, seed=seed)
    with new_folder(out / "edited.zarr", overwrite=True) as draft:
        adata.write_zarr(draft)
    metrics["wall_s"] = round(time.perf_counter() - started, 1)
    write_json(out / "metrics.json", metrics)
    return metrics
