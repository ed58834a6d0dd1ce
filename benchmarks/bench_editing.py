"""Editing all cells: one p x p matrix and CSR in blocks, against two dense products over all cells.

    python benchmarks/bench_editing.py --cells 460000 --genes 1000
    python benchmarks/bench_editing.py --cells 40000 --repeats 5
    python benchmarks/bench_editing.py --operators --cells 1500

The last line compares what the operators do to simulated cells that they were not fitted to.

Both edit the same counts (about 11 % non-zero) with the paper's edit (top_k=1, clipped) from the same eigenvectors. A and B
alternate; each runs in a process of its own, so that the peak memory is its own. ``plain-csr`` is the plain form followed by
``scipy.sparse.csr_matrix``: what it takes to get the same object as our CSR result.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import time
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp


def make_counts(cells: int, genes: int, density: float, seed: int) -> sp.csr_matrix:
    """Poisson counts, in blocks."""
    rng = np.random.default_rng(seed)
    profile = rng.gamma(0.35, 1.0, genes)
    profile *= density / np.mean(1 - (1 + profile * 0.5) ** -2)  # share of non-zeros, roughly
    blocks = []
    for start in range(0, cells, 10_000):
        n = min(10_000, cells - start)
        rate = profile * rng.gamma(2.0, 0.5, (n, 1))
        blocks.append(sp.csr_matrix(rng.poisson(rate).astype(np.float32)))
    return sp.vstack(blocks, format="csr")


def memory(field: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (peak since :func:`forget_peak`), in GiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 2**20
    return float("nan")


def forget_peak() -> None:
    """Begin the peak anew, so that reading the counts is no part of it."""
    Path("/proc/self/clear_refs").write_text("5")


def plain(X: sp.csr_matrix, parts: dict[str, np.ndarray]) -> np.ndarray:
    """Two dense products over all cells: into the source's eigenvectors, out of the target's."""
    coordinates = X.toarray() @ parts["oi"]
    coordinates *= parts["scale"]
    edited = coordinates @ parts["oj"].T
    return np.maximum(edited, 0)


def ours(X: sp.csr_matrix, parts: dict[str, np.ndarray], *, form: str):
    """One p x p matrix; blocks of cells densified, multiplied, clipped."""
    from sst.editing import LinearMap, apply, stream

    fitted = LinearMap((parts["oi"].astype(np.float64) * parts["scale"]) @ parts["oj"].astype(np.float64).T)
    if form in {"csr", "dense"}:
        return apply(X, [fitted], sparse_out=form == "csr")
    if form == "streamed":
        totals = np.zeros(X.shape[1])
        for _, block in stream(X, [fitted]):
            totals += np.asarray(block.sum(axis=0)).ravel()
        return totals
    msg = f"form={form!r} is not known."
    raise ValueError(msg)


def worker(form: str, path: str, reference: str | None, queue) -> None:
    from numba.core import config  # noqa: F401  (imports are no part of the time)

    with np.load(path) as file:
        X = sp.csr_matrix((file["data"], file["indices"], file["indptr"]), shape=tuple(file["shape"]))
        parts = {k: file[k] for k in ("oi", "oj", "scale")}

    def run(counts: sp.csr_matrix):
        if form.startswith("plain"):
            return plain(counts, parts) if form == "plain" else sp.csr_matrix(plain(counts, parts))
        return ours(counts, parts, form=form)

    run(X[:64])
    forget_peak()
    before = memory("VmRSS")
    start = time.process_time()  # of one thread: neighbours on the machine do not count
    result = run(X)
    seconds = time.process_time() - start
    extra = memory("VmHWM") - before
    if sp.issparse(result):
        size = (result.data.nbytes + result.indices.nbytes + result.indptr.nbytes) / 2**30
        share = result.nnz / np.prod(result.shape)
        print(f"  {form}: {share:.1%} non-zero, the result itself takes {size:.2f} GiB", flush=True)
    difference = float("nan")
    if reference is not None and form == "plain":
        np.save(reference, result[:5000])
    elif reference is not None and form != "streamed":
        part = result[:5000]
        part = part.toarray() if sp.issparse(part) else part
        expected = np.load(reference)
        difference = float(np.abs(part - expected).max() / np.abs(expected).max())
    queue.put((seconds, extra, difference))


def compare_operators(n_cells: int) -> None:
    """What each operator does to held-out cells of the simulator, all genes edited."""
    import pandas as pd
    from scipy.stats import spearmanr

    import sst
    from sst import editing

    adata = sst.datasets.simulate_tissue(n_cells=n_cells).to_adata()
    adata.obs["split"] = np.where(adata.obs["fov"].astype(int) % 4 == 0, "test", "train")
    operators: dict[str, dict[str, Any]] = {
        "scm, top_k=1": {"method": "scm"},
        "scm, top_k=None": {"method": "scm", "top_k": None},
        "ot": {"method": "ot"},
        "ot_centered": {"method": "ot_centered"},
        "mean (shift)": {"method": "mean"},
        "mean (scale)": {"method": editing.Mean(mode="scale")},
        "quantile": {"method": "quantile"},
    }
    rows = []
    for name, options in operators.items():
        sst.tl.edit(adata, model=None, subset="split == 'test'", **options)
        report = adata.uns["edited"]["report"]
        for _, row in report["directions"].iterrows():
            genes = report["genes"][report["genes"]["source"] == row["source"]]
            gap, shift = genes["mean_target"] - genes["mean_source"], genes["mean_edited"] - genes["mean_source"]
            moved = (gap.abs() > 0.2 * np.sqrt(genes["mean_source"] + 0.1)).to_numpy()
            here = ((adata.obs["condition"] == row["source"]) & (adata.obs["split"] == "test")).to_numpy()
            before, after = adata.X[here].toarray(), adata.layers["edited"][here].toarray()
            varied = (np.ptp(before, axis=0) > 0) & (np.ptp(after, axis=0) > 0)
            ranks = [spearmanr(before[:, g], after[:, g]).statistic for g in np.flatnonzero(varied)]
            rows.append(
                {
                    "operator": name,
                    "direction": f"{row['source']} -> {row['target']}",
                    "gap closed": (shift * np.sign(gap))[moved].sum() / gap.abs()[moved].sum(),
                    "worst gene": (shift / gap)[moved].min(),
                    "moment error": row["moment_error_after"],
                    "(before)": row["moment_error_before"],
                    "displacement": row["displacement_rms"],
                    "clipped": row["clipped_share"],
                    "clipped mass": row["clipped_mass_share"],
                    "ranks kept": np.median(ranks),
                    "distance": row["distance_edited"],
                    "(floor)": row["distance_floor"],
                    "off": row["off_manifold"],
                }
            )
    table = pd.DataFrame(rows).round(3)
    print("| " + " | ".join(table.columns) + " |\n" + "|---" * table.shape[1] + "|")
    for _, row in table.iterrows():
        print("| " + " | ".join(str(v) for v in row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=40_000)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--density", type=float, default=0.11)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forms", nargs="+", default=["plain-csr", "dense", "csr", "streamed"])
    parser.add_argument("--operators", action="store_true")
    args = parser.parse_args()
    if args.operators:
        compare_operators(args.cells)
        return
    import tempfile

    from sst.editing import Moments, _scm

    X = make_counts(args.cells, args.genes, args.density, 0)
    target = make_counts(min(args.cells, 20_000), args.genes, args.density, 1)
    li, oi = _scm.eigh_descending(Moments.of(X[:20_000]).second)
    lj, oj = _scm.eigh_descending(Moments.of(target).second)
    scale = np.ones(args.genes, dtype=np.float32)
    scale[0] = np.sqrt(lj[0] / li[0])
    oj = oj * np.where(np.sum(oi * oj, axis=0) < 0, -1, 1)
    print(f"{args.cells} cells x {args.genes} genes, {X.nnz / np.prod(X.shape):.1%} non-zero")
    context = mp.get_context("spawn")
    found: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path, reference = f"{folder}/x.npz", f"{folder}/r.npy"
        np.savez(
            path, data=X.data, indices=X.indices, indptr=X.indptr, shape=X.shape,
            oi=oi.astype(np.float32), oj=oj.astype(np.float32), scale=scale,
        )  # fmt: skip
        del X, target
        for _ in range(args.repeats):
            for form in ["plain", *args.forms]:
                queue = context.Queue()
                process = context.Process(target=worker, args=(form, path, reference, queue))
                process.start()
                found.setdefault(form, []).append(queue.get())
                process.join()
    base = np.median(found["plain"], axis=0)
    print(f"{'form':10} {'seconds':>8} {'speed-up':>9} {'extra GiB':>10} {'of plain':>9} {'difference':>11}")
    for form, runs in found.items():
        seconds, extra, difference = np.median(runs, axis=0)
        ratio = np.median([p[0] / r[0] for p, r in zip(found["plain"], runs, strict=True)])
        print(f"{form:10} {seconds:8.2f} {ratio:8.2f}x {extra:10.2f} {extra / base[1]:8.2f}x {difference:11.1e}")


if __name__ == "__main__":
    main()
