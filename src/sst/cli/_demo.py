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

#: Keys of the three edits: layers, and images of these very cells; the all-genes edit has the contract's name.
EDITS = {"all": "edited", "chosen": "edited_chosen", "null": "edited_null"}
#: Obsm keys of the generator's images of the same expression.
GENERATED = {name: f"generated_{key}" for name, key in EDITS.items()}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="the whole path on simulated or real slides: read, crop, train, edit, measure, report",
        description="Without --data, two slides are simulated, written in the CosMx layout and read back; no download.",
    )
    parser.add_argument("--data", nargs="+", type=Path, metavar="FOLDER", help="one or two CosMx or Xenium folders")
    parser.add_argument("--out", type=Path, default=Path("sst_demo"), help="results (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--cells", type=int, default=9000, help="cells a simulated slide (default: %(default)s)")
    parser.add_argument(
        "--train-seconds",
        type=float,
        default=None,
        help="limit of both trainings, which run side by side (default: by the data)",
    )
    parser.add_argument("--iterations", type=int, default=None, help="limit of both trainings in steps")
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

    from ._demo_cells import held_cells, this_cell
    from ._demo_input import METHOD
    from ._demo_measure import measure, true_images
    from ._demo_report import write
    from ._demo_train import train_both, unfinished

    adata = data.adata
    logger.info("training an editor and a generator on %d cells ...", int((adata.obs["split"] == "train").sum()))
    gan, editor = train_both(data, out=out, seed=seed, seconds=seconds, iterations=iterations)
    genes = {"all": None, "chosen": data.chosen, "null": data.null}
    sst.tl.generate(adata, model=gan, seed=seed)
    for name, key in EDITS.items():
        logger.info("editing: %s genes ...", name)
        sst.tl.edit(
            adata, genes=genes[name], groupby=data.groupby, model=editor, method=METHOD, seed=seed, key_added=key
        )
        sst.tl.generate(adata, model=gan, layer=key, seed=seed, key_added=GENERATED[name])
    test = (adata.obs["split"] == "test").to_numpy()
    shown = ["crops", "edited", "generated", GENERATED["all"]]
    for key in (*shown, GENERATED["chosen"], GENERATED["null"]):
        sst.tl.morphology(adata, key=key, subset=test)
    sst.tl.distances(adata, groupby=data.groupby, keys=shown, subset=test)
    sst.tl.confound_report(adata, data.groupby, seed=seed)

    truths = true_images(data, genes)
    held = held_cells(data, edits=EDITS, truths=truths, seed=seed)
    metrics = measure(data, edits=GENERATED, truths=truths)
    if truths:
        metrics["this_cell"] = this_cell(data, held, edits=EDITS, seed=seed)
    steps = {"steps": int(gan.history.index.max()), "steps_editor": int(editor.history.index.max())}
    metrics |= steps | {"cut_by_time": unfinished(gan, editor, iterations), "wall_s": 0.0}
    write(data, held, gan, editor, metrics, out=out, edits=EDITS, generated=GENERATED, seed=seed)
    with new_folder(out / "edited.zarr", overwrite=True) as draft:
        adata.write_zarr(draft)
    metrics["wall_s"] = round(time.perf_counter() - started, 1)
    write_json(out / "metrics.json", metrics)
    return metrics
