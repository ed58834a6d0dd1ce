"""Paired crops against the obvious ways: counts in windows, cutting to disk, random minibatches, peak memory.

    python benchmarks/bench_crops.py                  # 100 k cells, 20 M transcripts, 1000 genes
    python benchmarks/bench_crops.py --cells 10000    # everything in proportion, quick

The slow sides are measured on few cells (``--slow-cells``, ``--png-cells``) and given as rates; each pair is run by turns in one
process, and medians of the turns are compared. Transcripts a cell, and cells an area, are those of the full size.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

Row = tuple[str, float, float, float, str]
SIZE, OUTPUT, EDGE = 160, 128, 4256  # window, crop, edge of a field of view, px
AREA = 60**2  # px a cell
PER_CELL = 200  # transcripts a cell


def tissue_patch(edge: int, rng: np.random.Generator) -> np.ndarray:
    """Two channels of blobs with shot noise, so that PNG has something like an image to compress."""
    from scipy.ndimage import gaussian_filter

    spots = np.zeros((edge, edge), np.float32)
    n = edge * edge // AREA
    spots[rng.integers(0, edge, n), rng.integers(0, edge, n)] = rng.gamma(4, 1, n)
    nuclei = gaussian_filter(spots, 9) * 9**2 * 6 * 60
    around = gaussian_filter(spots, 20) * 20**2 * 6 * 20
    return rng.poisson(np.stack([around + 20, nuclei + 15])).astype(np.uint16)


def make_slide(folder: Path, cells: int, genes: int, seed: int = 0) -> None:
    """Write a slide of one image as SpatialData zarr."""
    import anndata as ad
    import dask.array as da
    import dask.dataframe as dd
    import spatialdata as sd
    from spatialdata.models import Image2DModel, PointsModel

    rng = np.random.default_rng(seed)
    edge = int(np.sqrt(cells * AREA))
    patch = tissue_patch(2048, rng)
    tiles = -(-edge // 2048)
    image = da.tile(da.from_array(patch, chunks=(1, 2048, 2048)), (1, tiles, tiles))[:, :edge, :edge]
    names = [f"gene{i:04d}" for i in range(genes)]
    n = cells * PER_CELL
    parts = []
    parquet = folder.with_suffix(".parquet")
    parquet.mkdir(parents=True)
    for k, start in enumerate(range(0, n, 1_000_000)):
        m = min(1_000_000, n - start)
        code = np.minimum(rng.exponential(genes / 6, m), genes - 1).astype(np.int32)
        frame = pd.DataFrame({
            "x": rng.uniform(0, edge, m).astype(np.float32),
            "y": rng.uniform(0, edge, m).astype(np.float32),
            "gene": pd.Categorical.from_codes(code, categories=names),
            "qv": rng.uniform(15, 40, m).astype(np.float32),
        })  # fmt: skip
        parts.append(parquet / f"part.{k:03d}.parquet")
        frame.to_parquet(parts[-1])
    points = dd.read_parquet([str(p) for p in parts])
    points["gene"] = points["gene"].cat.set_categories(names)
    obs = pd.DataFrame(
        {"x_px": rng.uniform(0, edge, cells), "y_px": rng.uniform(0, edge, cells)},
        index=[f"c{i}" for i in range(cells)],
    )
    table = ad.AnnData(
        sp.random(cells, genes, 0.05, format="csr", dtype=np.float32, random_state=0, data_rvs=lambda k: np.ones(k)),
        obs=obs,
        var=pd.DataFrame(index=names),
    )
    sdata = sd.SpatialData(
        images={"image": Image2DModel.parse(image, dims=("c", "y", "x"), c_coords=["CD298", "DAPI"])},
        points={"points": PointsModel.parse(points, feature_key="gene")},
        tables={"table": table},
    )
    sdata.write(folder)
    shutil.rmtree(parquet)


def by_turns(slow, fast, turns: int) -> tuple[float, float, float]:
    """Medians of cells a second of both, by the clock, and the ratio by CPU time, which neighbours on the machine disturb less.

    Each is called with the turn's number and returns how many cells it did.
    """
    rates: list[list[float]] = [[], [], [], []]
    for turn in range(turns):
        for k, work in enumerate((slow, fast)):
            start, cpu = time.perf_counter(), time.process_time()
            done = work(turn)
            rates[k].append(done / (time.perf_counter() - start))
            rates[2 + k].append(done / (time.process_time() - cpu))
    middle = [statistics.median(r) for r in rates]
    return middle[0], middle[1], middle[3] / middle[2]


def bench_counts(args: argparse.Namespace) -> list[Row]:
    """Counting the transcripts of windows: on the whole slide, and on one field of view."""
    rows = []
    slide = int(np.sqrt(args.cells * AREA))
    for where, edge, turns, bar in (("slide", slide, args.turns, "300"), ("FOV", min(EDGE, slide), args.turns, "")):
        rows += counts_of(where, edge, turns, bar, args)
    return rows


def counts_of(where: str, edge: int, turns: int, bar: str, args: argparse.Namespace) -> list[Row]:
    """Counting in a square of ``edge`` px; every result of the slow ways is compared with ours."""
    from sst.io.crops._windows import count_windows, index_transcripts, window_corners

    rng = np.random.default_rng(0)
    cells, genes = edge * edge // AREA, args.genes
    n = cells * PER_CELL
    x, y = rng.integers(0, edge, (2, n), dtype=np.int32)
    gene = np.minimum(rng.exponential(genes / 6, n), genes - 1).astype(np.int32)
    corners = window_corners(rng.uniform(SIZE, edge - SIZE, (cells, 2)), SIZE)
    count_windows(index_transcripts(x[:9], y[:9], gene[:9]), corners[:2], SIZE, genes)  # compile
    each = max(1, args.slow_cells // turns)
    whole = count_windows(index_transcripts(x, y, gene), corners[: each * turns], SIZE, genes)
    rows = []

    def fast(turn: int) -> int:  # one thread, the sort included
        return count_windows(index_transcripts(x, y, gene), corners, SIZE, genes).shape[0]

    def check(i: int, got: np.ndarray) -> None:
        if not np.array_equal(got, whole[i].toarray().ravel()):
            msg = f"cell {i} differs"
            raise RuntimeError(msg)

    what = f"counts, {where} of {n / 1e6:.1f} M transcripts"
    try:
        import sparse
    except ImportError:
        print("the package sparse is not installed: its row is left out")
    else:
        array = sparse.COO(np.stack([y, x, gene]), np.ones(n, np.int32), shape=(edge, edge, genes))

        def slow(turn: int) -> int:
            for i in range(turn * each, (turn + 1) * each):
                x0, y0 = corners[i]
                check(i, array[y0 : y0 + SIZE, x0 : x0 + SIZE].sum(axis=(0, 1)).todense())
            return each

        slow(0)  # compile
        rows.append((f"{what} / sparse.COO[y, x, gene] sliced per cell", *by_turns(slow, fast, turns), bar))
        del array
    flat = sp.csr_matrix((np.ones(n, np.int32), (y, x.astype(np.int64) * genes + gene)), shape=(edge, edge * genes))

    def slow_scipy(turn: int) -> int:
        for i in range(turn * each, (turn + 1) * each):
            x0, y0 = corners[i]
            part = flat[y0 : y0 + SIZE, x0 * genes : (x0 + SIZE) * genes]
            check(i, np.bincount(part.indices % genes, weights=part.data, minlength=genes))
        return each

    rows.append((f"{what} / scipy CSR y x (x, gene) sliced per cell", *by_turns(slow_scipy, fast, turns), ""))
    return rows


def bench_crops(args: argparse.Namespace, work: Path) -> list[Row]:
    """The whole of crop_cells to a store, against writing (only) a PNG and an npz per cell; then reading back."""
    import spatialdata as sd
    from PIL import Image

    import sst

    small = min(args.cells, 20_000)
    make_slide(work / "small.sd.zarr", small, args.genes)
    sdata = sd.read_zarr(work / "small.sd.zarr")
    adata = sst.pp.crop_cells(sdata, size=SIZE, output_size=OUTPUT, store=work / "small.zarr", n_workers=args.workers)
    kept = adata.n_obs
    pictures = sst.pp.rescale_intensity(adata, copy=True)
    reader = sst.io.crop_reader(pictures)
    n_png = min(args.png_cells, kept)
    images, counts = np.moveaxis(reader.block(0, n_png), 1, -1), adata.X[:n_png]
    (work / "png").mkdir()
    each = n_png // args.turns

    def write_files(turn: int) -> int:
        for i in range(turn * each, (turn + 1) * each):
            Image.fromarray(images[i], mode="LA").save(work / "png" / f"{i}.png")
            sp.save_npz(work / "png" / f"{i}.npz", counts[i])
        return each

    def crop(turn: int) -> int:
        sst.pp.crop_cells(
            sd.read_zarr(work / "small.sd.zarr"),
            size=SIZE,
            output_size=OUTPUT,
            store=work / "again.zarr",
            n_workers=args.workers,
            overwrite=True,
        )
        return kept

    rows = [("crop_cells to a store / PNG and npz per cell written", *by_turns(write_files, crop, args.turns), "10")]
    sst.io.write_store(pictures, work / "uint8.zarr")
    stored = sst.io.crop_reader(sst.io.open_store(work / "uint8.zarr"))
    rng = np.random.default_rng(0)
    done = each * args.turns

    def read_png(turn: int) -> int:
        for _ in range(args.batches // 8):
            batch = [np.asarray(Image.open(work / "png" / f"{i}.png")) for i in rng.integers(0, done, 16)]
            np.stack(batch).astype(np.float32)
        return args.batches // 8 * 16

    def minibatches(source, kind):
        def read(turn: int) -> int:
            for _ in range(args.batches):
                batch = source.take(rng.integers(0, kept, 16))
                if kind is not np.uint8:
                    batch.astype(kind)
            return args.batches * 16

        return read

    reader.take([0])
    for name, source, kind, bar in (
        ("minibatches of 16, float32, from a uint8 store / PNGs", stored, np.float32, "12"),
        ("minibatches of 16, uint8, from a uint8 store / PNGs", stored, np.uint8, "50"),
        ("minibatches of 16, uint8, uint16 store rescaled on the fly / PNGs", reader, np.uint8, ""),
    ):
        rows.append((name, *by_turns(read_png, minibatches(source, kind), args.turns), bar))
    start = time.perf_counter()
    for a in range(0, kept, 2048):
        stored.block(a, a + 2048)
    print(f"in sequence to RAM: {kept * 2 * OUTPUT**2 / 1e9 / (time.perf_counter() - start):.1f} GB/s (cached file)")
    return rows


CHILD = """
import json, sys, time
import spatialdata as sd, sst
sst.settings.progress = False
def peak():  # of this program, not of the one that started it
    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) / 2**20
before = peak()
start = time.perf_counter()
adata = sst.pp.crop_cells(sd.read_zarr(sys.argv[1]), size={size}, output_size={output}, store=sys.argv[2], n_workers={workers})
print(json.dumps({{"seconds": time.perf_counter() - start, "cells": adata.n_obs, "nnz": int(adata.X.nnz),
    "imports": before, "peak": peak()}}))
"""


def bench_memory(args: argparse.Namespace, work: Path) -> None:
    """Peak memory of a process that does nothing but crop_cells, for n and 2 n cells."""
    peaks = []
    for cells in (args.cells, 2 * args.cells):
        make_slide(work / "slide.sd.zarr", cells, args.genes)
        code = CHILD.format(size=SIZE, output=OUTPUT, workers=args.workers)
        command = [sys.executable, "-c", code, str(work / "slide.sd.zarr"), str(work / "slide.zarr")]
        said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        peaks.append(said["peak"])
        print(
            f"crop_cells of {cells} cells, {cells * PER_CELL / 1e6:.0f} M transcripts: {said['peak']:.2f} GiB at the peak "
            f"({said['imports']:.2f} of it imports), {said['seconds']:.0f} s, {said['cells'] / said['seconds']:.0f} cells/s"
        )
        for left in ("slide.sd.zarr", "slide.zarr"):
            shutil.rmtree(work / left)
    print(f"twice the cells: {100 * (peaks[1] / peaks[0] - 1):+.0f} % memory (bar: 2 GB, 25 %)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--slow-cells", type=int, default=500)
    parser.add_argument("--png-cells", type=int, default=2000)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--parts", nargs="+", default=["counts", "crops", "memory"])
    parser.add_argument("--folder", type=Path, help="scratch folder on the disk to measure")
    args = parser.parse_args()
    import sst

    sst.settings.progress = False
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        work = Path(folder)
        rows = bench_counts(args) if "counts" in args.parts else []
        if "crops" in args.parts:
            rows += bench_crops(args, work)
        if rows:
            print(
                f"\n| {'what':86} | slow, cells/s | ours, cells/s | ratio | by CPU time | bar |\n|{'-' * 88}|---|---|---|---|---|"
            )
        for name, slow, fast, cpu, bar in rows:
            print(f"| {name:86} | {slow:,.0f} | {fast:,.0f} | {fast / slow:.1f} | {cpu:.1f} | {bar} |")
        if "memory" in args.parts:
            bench_memory(args, work)


if __name__ == "__main__":
    main()
