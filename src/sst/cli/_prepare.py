"""``python -m sst prepare``: slides' folders to one object of paired cells, rescaled and split."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst._files import locked, read_mark, write_json
from sst._keys import TABLE, column_name
from sst._settings import logger
from sst._validate import resolve_table
from sst.io.crops import full_resolution, match_images

from ._objects import check_new
from ._options import add_config
from ._plan import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

_CELLS_PER_SECOND = 700  # of one core: reading and cutting (benchmarks/RESULTS_crops.md)
_MARK = "prepare.json"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the subcommand."""
    parser = subparsers.add_parser(
        "prepare",
        help="read slides, cut paired cells, rescale and split them",
        description="Each slide is a folder of CosMx, Xenium, MERSCOPE or Visium HD, or a SpatialData .zarr. Its crops go to a store of its own beside --out; "
        "called again after an interruption, the command goes on where it was.",
    )
    add_config(parser)
    parser.add_argument("slides", type=Path, nargs="+", metavar="SLIDE", help="folders, one a slide")
    parser.add_argument("--out", type=Path, required=True, help="the object, a new .zarr")
    parser.add_argument(
        "--groups", nargs="+", metavar="GROUP", help="each slide's group, in order (default: the folders' names)"
    )
    parser.add_argument("--groupby", default="condition", help="obs column of the groups (default: %(default)s)")
    parser.add_argument("--donors", nargs="+", metavar="DONOR", help="each slide's donor, in order: obs column donor")
    parser.add_argument(
        "--batch-key",
        metavar="COLUMN",
        help="slide, or donor: their brightness is brought to the mean of their group's (default: each slide keeps its own)",
    )
    parser.add_argument("--size", type=int, required=True, help="side of a window, pixels of the slide")
    parser.add_argument("--output-size", type=int, default=128, help="side of a crop, pixels (default: %(default)s)")
    parser.add_argument("--channels", nargs="+", metavar="NAME", help="stains to keep (default: all)")
    parser.add_argument("--border", type=int, default=0, help="pixels to leave out at the fields' low edges")
    parser.add_argument(
        "--expression",
        choices=["window", "cell"],
        default="window",
        help="transcripts counted in the window, or those of the segmented cell",
    )
    parser.add_argument("--table", help="the slides' table of cells or bins, such as square_008um (default: table)")
    parser.add_argument("--image", help="the slides' image, where there are several")
    parser.add_argument(
        "--split-by", choices=["fov", "tile", "sample", "donor"], default="fov", help="what is held out whole"
    )
    parser.add_argument("--test-size", type=float, default=0.2, help="share of the cells that is held out")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--keep-slides", action="store_true", help="keep the slides' own stores of crops")
    parser.add_argument("--dry-run", action="store_true", help="say what it would do and need, and do nothing")
    parser.set_defaults(func=_main)


def _main(args: argparse.Namespace) -> int:
    import sst

    groups = args.groups or [slide.name for slide in args.slides]
    if len(groups) != len(args.slides):
        msg = f"--groups {' '.join(groups)}: {len(args.slides)} slides need as many groups."
        raise ValueError(msg)
    if args.donors and len(args.donors) != len(args.slides):
        msg = f"--donors {' '.join(args.donors)}: {len(args.slides)} slides need as many donors."
        raise ValueError(msg)
    if args.split_by == "donor" and not args.donors:
        msg = "--split-by donor: say whose each slide is with --donors."
        raise ValueError(msg)
    for path in args.slides:
        if not path.exists():
            msg = f"{path}: there is no such slide."
            raise FileNotFoundError(msg)
    if args.out.suffix != ".zarr":
        msg = f"--out {args.out}: a name that ends in .zarr is needed."
        raise ValueError(msg)
    check_new(args.out)
    if args.dry_run:
        _say_plan(args, groups)
        return 0
    names = slide_names(groups)
    work = args.out.with_name(f"{args.out.name}.slides")
    cut = {"size": args.size, "output_size": args.output_size, "channels": args.channels, "border": args.border}
    cut["expression"] = args.expression
    cut |= {name: value for name, value in (("table_key", args.table), ("image", args.image)) if value is not None}
    with locked(work, "prepared"):
        cut_slides(dict(zip(names, args.slides, strict=True)), work, cut)
        opened = {name: sst.io.open_store(work / f"{name}.zarr") for name in names}
        for name, group, donor in zip(names, groups, args.donors or [None] * len(names), strict=True):
            opened[name].obs[args.groupby] = group
            if donor is not None:
                opened[name].obs["donor"] = donor
        write_joined(
            opened,
            args.out,
            groupby=args.groupby,
            split={"by": args.split_by, "test_size": args.test_size},
            seed=args.seed,
            batch_key=args.batch_key,
        )
        if not args.keep_slides:
            shutil.rmtree(work)
    logger.info("wrote %s", args.out)
    return 0


def slide_names(groups: Sequence[str]) -> list[str]:
    """A name for each slide: its group's, numbered where a group has several."""
    names = []
    for i, group in enumerate(groups):
        alike = [k for k, other in enumerate(groups) if other == group]
        names.append(column_name(group) + (f"-{alike.index(i) + 1}" if len(alike) > 1 else ""))
    return names


def cut_slides(slides: Mapping[str, Path], work: Path, cut: Mapping[str, Any]) -> None:
    """A store of crops for each slide, ``work/<name>.zarr``; those that are whole already stay.

    Raises
    ------
    ValueError
        ``work`` holds crops that were cut otherwise.
    """
    import sst

    asked = {"slides": {name: str(path.resolve()) for name, path in slides.items()}, "cut": dict(cut)}
    before = read_mark(work / _MARK)
    if before is not None and before != asked:
        msg = f"{work} holds crops of another call ({before}): finish that one, or remove the folder."
        raise ValueError(msg)
    work.mkdir(parents=True, exist_ok=True)
    write_json(work / _MARK, asked)
    for name, path in slides.items():
        store = work / f"{name}.zarr"
        if not store.exists():
            sst.pp.crop_cells(read_slide(path), store=store, sample=name, **cut)


def read_slide(path: Path) -> SpatialData:
    """A slide in whatever form it is: SpatialData ``.zarr``, a bundle of Xenium, MERSCOPE or Visium HD, or a CosMx export."""
    import sst

    if (path / "zarr.json").exists() or (path / ".zgroup").exists():
        import spatialdata

        return spatialdata.read_zarr(path)
    if (path / "experiment.xenium").exists():
        return sst.pp.read_xenium(path)
    if (path / "images" / "micron_to_mosaic_pixel_transform.csv").exists():
        import spatialdata_io

        return spatialdata_io.merscope(path)
    if next(path.glob("*feature_slice.h5"), None) is not None:
        import spatialdata_io

        return spatialdata_io.visium_hd(path, load_segmentations_only=False)
    return sst.pp.read_cosmx(path)


def write_joined(
    slides: Mapping[str, AnnData],
    out: Path,
    *,
    groupby: str,
    split: Mapping[str, Any],
    seed: int,
    batch_key: str | None = None,
) -> None:
    """Join slides' crops, rescale, hold out, and write one store; what an interrupted call left of it is made again."""
    import anndata as ad

    import sst

    adata = ad.concat(slides, label="slide", index_unique="-", uns_merge="same")
    for column in ("slide", groupby, *(c for c in ("donor",) if c in adata.obs)):
        adata.obs[column] = adata.obs[column].astype("category")
    one_each = adata.obs.groupby(groupby, observed=True)["slide"].nunique().max() == 1
    if batch_key is None:
        sst.pp.rescale_intensity(adata, groupby=groupby if one_each else "slide")
    else:
        sst.pp.rescale_intensity(adata, groupby=groupby, batch_key=batch_key)
    sst.pp.train_test_split(adata, seed=seed, **split)
    left = out.with_name(f"{out.name}.partial")
    if left.exists():
        shutil.rmtree(left)
    sst.io.write_store(adata, out, overwrite=out.exists())


def _say_plan(args: argparse.Namespace, groups: Sequence[str]) -> None:
    """Slides, cells (before those near an edge are left out), disk, time."""
    cells, channels = 0, 0
    for path, group in zip(args.slides, groups, strict=True):
        sdata = read_slide(path)
        table = resolve_table(sdata, args.table or TABLE)
        name = next(iter(match_images(sdata, table, args.image).values()))
        channels = len(args.channels or full_resolution(sdata.images[name], name)[1])
        sys.stdout.write(f"{path}: {table.n_obs} cells, {table.n_vars} genes, {group}\n")
        cells += table.n_obs
    image = channels * args.output_size**2
    free = shutil.disk_usage(args.out.resolve().parent).free
    need = 3 * cells * image  # 16 bits in the slides' stores, 8 in the object
    say(
        cells=f"{cells} at most, {channels} x {args.output_size} x {args.output_size}",
        disk=f"{need / 1e9:.1f} GB while it runs, {cells * image / 1e9:.1f} GB in the end; free: {free / 1e9:.1f} GB",
        time=f"about {cells / _CELLS_PER_SECOND / 60:.0f} minutes on one core",
    )
