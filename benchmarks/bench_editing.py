"""Editing all cells: one p x p matrix and CSR in blocks, against two dense products over all cells.

    python benchmarks/bench_editing.py --cells 460000 --genes 1000
    python benchmarks/bench_editing.py --cells 40000 --repeats 5

Both edit the same counts (about 11 % non-zero) with the paper's edit (top_k=1, clipped) from the same eigenvectors. A and B
alternate; each runs in a process of its own, so that the peak memory is its own.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import resource
import time
from pathlib import Path

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


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def current() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 2**20
    return float("nan")


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
    if form == "csr":
        return apply(X, [fitted])
    if form == "streamed":
        totals = np.zeros(X.shape[1])
        for _, block in stream(X, [fitted]):
            totals += np.asarray(block.sum(axis=0)).ravel()
        return totals
    out = np.empty(X.shape, dtype=np.float32)
    for rows, block in stream(X, [fitted], sparse_out=False):
        out[rows] = block
    return out


def worker(form: str, path: str, reference: str | None, queue) -> None:
    from numba.core import config  # noqa: F401  (imports are no part of the time)

    with np.load(path) as file:
        X = sp.csr_matrix((file["data"], file["indices"], file["indptr"]), shape=tuple(file["shape"]))
        parts = {k: file[k] for k in ("oi", "oj", "scale")}
    warm = X[:64]
    (plain(warm, parts) if form == "plain" else ours(warm, parts, form=form))
    before = current()
    start = time.process_time()  # of one thread: neighbours on the machine do not count
    result = plain(X, parts) if form == "plain" else ours(X, parts, form=form)
    seconds = time.process_time() - start
    extra = peak() - before
    difference = float("nan")
    if reference is not None and form == "plain":
        np.save(reference, result[:5000])
    elif reference is not None and form in {"dense", "csr"}:
        part = result[:5000]
        part = part.toarray() if sp.issparse(part) else part
        expected = np.load(reference)
        difference = float(np.abs(part - expected).max() / np.abs(expected).max())
    queue.put((seconds, extra, difference))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=40_000)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--density", type=float, default=0.11)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--forms", nargs="+", default=["dense", "csr", "streamed"])
    args = parser.parse_args()
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
