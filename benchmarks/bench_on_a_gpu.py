"""A training of some minutes on the realistic tissue, and an edit of many cells: the two waits of a user with a GPU.

    python benchmarks/bench_on_a_gpu.py --minutes 15 --cells 100000
    python benchmarks/bench_on_a_gpu.py --device cpu --preset demo --size 32 --minutes 0.2 --cells 500 --tissue 300    # does it run?

Prints tables for RESULTS_training.md; `benchmarks/on_a_gpu.sh` calls it after the GPU tests and the benchmark of a training iteration.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import sst
from sst.train import GANConfig


def tissue(n_cells: int, size: int):
    """Paired cells of the realistic tissue: crops of ``size`` px, whole fields held out."""
    made = sst.datasets.simulate_tissue(n_cells, preset="realistic", seed=0)
    adata = made.to_adata(size=64, output_size=size)
    sst.pp.rescale_intensity(adata, groupby="condition")
    sst.pp.train_test_split(adata, by="fov", seed=0)
    return adata


def repeated(adata, n: int):
    """``n`` cells: the object's, again and again, each under a name of its own."""
    many = adata[np.random.default_rng(0).integers(adata.n_obs, size=n)].copy()
    many.obs_names = [f"c{i}" for i in range(n)]
    return many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--tissue", type=int, default=6_000, help="cells a slide")
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    sst.settings.progress = False
    where = torch.device(args.device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    adata = tissue(args.tissue, args.size)
    seconds = 60 * args.minutes
    config = GANConfig.preset(args.preset).replace(
        fit__max_seconds=seconds, fit__iterations=10**6, fit__batch_size=args.batch,
        fit__evaluate_every=1_000, fit__checkpoint_every=5_000, fit__sample_every=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        gan = sst.tl.train_gan(adata, config=config, out=Path(out) / "gan", device=args.device, seed=0)
    history = gan.history
    done, speed = int(history.index.max()), float(history["images_per_second"].dropna().median())
    last = history[[c for c in ("distance", "distance_images", "diversity") if c in history]].dropna().iloc[-1]
    print(
        f"\n{name}, preset {args.preset}, {args.size} px, batch {args.batch}, {args.minutes:g} minutes, seed 0, PyTorch {torch.__version__}"
    )
    print("| iterations | ms an iteration | images a second | " + " | ".join(last.index) + " |")
    print("|---" * (3 + len(last)) + "|")
    print(
        f"| {done:,} | {1000 * args.batch / speed:.1f} | {speed:,.0f} | " + " | ".join(f"{v:.3g}" for v in last) + " |",
        flush=True,
    )
    many = repeated(adata, args.cells)
    gan.to(args.device)
    sst.tl.edit(repeated(adata, 64), groupby="condition", model=gan)  # the first call prepares the device
    began = time.perf_counter()
    sst.tl.edit(many, groupby="condition", model=gan)
    taken = time.perf_counter() - began
    print(
        f"\n| cells edited and drawn before and after | s | cells a second |\n|---|---|---|\n| {args.cells:,} | {taken:.1f} | {args.cells / taken:,.0f} |"
    )


if __name__ == "__main__":
    main()
