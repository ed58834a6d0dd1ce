"""Time the Frechet distance against the obvious ways to compute it, and the nuclei of ten thousand crops.

python benchmarks/bench_metrics.py                 # all
python benchmarks/bench_metrics.py frechet --dims 2048 --samples 6000 1000
python benchmarks/bench_metrics.py nuclei --crops 10000 --size 128 --jobs 2
python benchmarks/bench_metrics.py memory          # peak memory of features and morphology against the number of cells
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import linalg


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Correlated features with a spectrum that falls off as a network's does."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, d + 1) ** -0.8
    return (rng.normal(size=(n, d)) * scale) @ linalg.qr(rng.normal(size=(d, d)))[0] + rng.normal(size=d) * 0.1


def by_sqrtm(s: np.ndarray, t: np.ndarray) -> float:
    return float(np.trace(linalg.sqrtm(s @ t)).real)


def by_eigenvalues(s: np.ndarray, t: np.ndarray) -> float:
    return float(np.sqrt(np.maximum(np.linalg.eigvals(s @ t).real, 0)).sum())


def frechet(dims: int, samples: list[int], rounds: int) -> None:
    """From moments (what streaming leaves) and, with fewer samples than dimensions, from the samples themselves."""
    from sst.metrics import Moments, frechet_distance

    print(f"| Frechet distance, d = {dims} | n | CPU seconds, median | slower than sst, median | relative difference |")
    print("| --- | --- | --- | --- | --- |")
    for n in samples:
        x, y = features(n, dims, 0), features(n, dims, 1)
        a, b = Moments(x), Moments(y)
        s, t = a.covariance, b.covariance
        rest = float(((a.mean - b.mean) ** 2).sum() + np.trace(s) + np.trace(t))
        ways: dict[str, Any] = {
            "scipy.linalg.sqrtm": lambda s=s, t=t, rest=rest: rest - 2 * by_sqrtm(s, t),
            "eigenvalues of the product": lambda s=s, t=t, rest=rest: rest - 2 * by_eigenvalues(s, t),
            "sst": lambda a=a, b=b: frechet_distance(a, b),
        }
        if n < dims:
            ways["sst"] = lambda x=x, y=y: frechet_distance(x, y)
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        values = {}
        for _ in range(rounds):  # interleaved, so that a busy machine slows all alike
            for name, way in ways.items():
                start = time.process_time()
                values[name] = way()
                seconds[name].append(time.process_time() - start)
        for name in ways:
            ratio = statistics.median(u / v for u, v in zip(seconds[name], seconds["sst"], strict=True))
            gap = abs(values[name] / values["sst"] - 1)
            print(f"| {name} | {n} | {statistics.median(seconds[name]):.2f} | {ratio:.1f} | {gap:.1e} |", flush=True)


def nuclei(crops: int, size: int, jobs: int) -> None:
    import sst
    from sst.metrics import nucleus_features

    tissue = sst.datasets.simulate_tissue(n_cells=300, fovs=2, seed=0)
    adata = tissue.to_adata(size=64, output_size=size)
    few = np.asarray(adata.obsm["crops"])
    rows = np.resize(np.arange(len(few)), crops)
    images = few[rows]
    one = images[:: max(1, crops // 500)]
    begin = time.process_time()
    nucleus_features(one, nucleus_channel=1, n_jobs=1)
    cpu = (time.process_time() - begin) / len(one)
    start = time.perf_counter()
    frame = nucleus_features(images, nucleus_channel=1, n_jobs=jobs)
    wall = time.perf_counter() - start
    truth = np.median(adata.obs["true_nucleus_area"]) / adata.uns["crops"]["pixel_size"] ** 2
    print(f"| {crops} crops of {size} px, {jobs} processes | seconds | CPU ms a crop | median area / truth | found |")
    print("| --- | --- | --- | --- | --- |")
    found = frame.attrs["counts"]["ok"] + frame.attrs["counts"]["border"]
    print(
        f"| nucleus_features | {wall:.1f} | {1000 * cpu:.1f} | {frame['nucleus_area_px'].median() / truth:.3f} | {found} |",
        flush=True,
    )


def masks(folder: Path, sizes: list[int]) -> None:
    """Areas against the given masks of a picture of real nuclei (``img2d.tif``, ``mask2d.tif``)."""
    import tifffile
    from scipy.stats import spearmanr
    from skimage.measure import regionprops

    from sst.metrics import nucleus_features

    image, labels = (tifffile.imread(folder / name) for name in ("img2d.tif", "mask2d.tif"))
    print(
        "| px | cells | median ratio | 5 % | 95 % | rank correlation | trusted | its ratios, 5 % | 95 % | rank correlation |"
    )
    print("| --- " * 10 + "|")
    for size in sizes:
        half, top = size // 2, min(labels.shape) - size // 2
        inside = [r for r in regionprops(labels) if half <= min(r.centroid) and max(r.centroid) < top]
        corners = [(int(r.centroid[0]) - half, int(r.centroid[1]) - half) for r in inside]
        frame = nucleus_features(np.stack([image[y : y + size, x : x + size] for y, x in corners]), n_jobs=1)
        truth = np.array([r.area for r in inside])
        cells = [f"| {size} | {len(truth)} | {np.nanmedian(frame.nucleus_area_px / truth):.2f}"]
        for rows in (frame.nucleus_area_px.notna().to_numpy(), frame.nucleus_ok.to_numpy()):
            area, given = frame.nucleus_area_px.to_numpy()[rows], truth[rows]
            low, high = np.quantile(area / given, [0.05, 0.95])
            cells += [f"{low:.2f} | {high:.2f} | {spearmanr(area, given)[0]:.3f}"]
            cells += [str(int(frame.nucleus_ok.sum()))] if len(cells) == 2 else []
        print(" | ".join(cells) + " |", flush=True)


_MEMORY = """
import resource, sys, numpy as np, dask.array as da, anndata as ad, sst
n = int(sys.argv[1])
few = np.asarray(sst.datasets.simulate_tissue(n_cells=100, fovs=1, seed=0).to_adata(64, 32).obsm["crops"])
few = (few // 16).clip(0, 255).astype(np.uint8)
images = da.concatenate([da.from_array(few, chunks=few.shape)] * (n // len(few) + 1))[:n]
adata = ad.AnnData(np.ones((n, 1), np.float32)); adata.obsm["crops"] = images
adata.obs["condition"] = np.where(np.arange(n) % 2, "a", "b"); adata.obs["condition"] = adata.obs["condition"].astype("category")
adata.uns["crops"] = {"channels": ["B2M", "DAPI"], "pixel_size": 0.5}
sst.settings.progress = False
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sst.tl.distances(adata, repeats=1, metrics=["frechet"])
sst.tl.morphology(adata, subset=np.arange(n) < n // 20, n_jobs=1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def memory(sizes: list[int]) -> None:
    print("| cells (32 px, 2 channels) | images, MiB | peak above the start, MiB |")
    print("| --- | --- | --- |")
    for n in sizes:
        out = subprocess.run([sys.executable, "-c", _MEMORY, str(n)], capture_output=True, text=True, check=True)
        print(f"| {n} | {n * 2 * 32 * 32 / 2**20:.0f} | {float(out.stdout.split()[-1]):.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["frechet", "nuclei", "masks", "memory", []], default=[])
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--samples", type=int, nargs="+", default=[6000, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crops", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 40_000, 160_000])
    parser.add_argument("--nuclei", type=Path, help="folder of a picture of nuclei and its masks")
    args = parser.parse_args()
    what = args.what or ["frechet", "nuclei", "memory"]
    if "frechet" in what:
        frechet(args.dims, args.samples, args.rounds)
    if "nuclei" in what:
        nuclei(args.crops, args.size, args.jobs)
    if "masks" in what:
        masks(args.nuclei, [48, 64, 96])
    if "memory" in what:
        memory(args.cells)


if __name__ == "__main__":
    main()
