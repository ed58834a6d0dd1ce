"""One training iteration of the networks: the plain formulation against ours, interleaved in one process.

The plain form (``tests/nn/reference.py``) makes the kernels of every cell, convolves with a group a cell and filters by padded
convolution, in PyTorch's own operators. An iteration is D step + G step + R1/16 + path length/4, without optimiser steps.

    python benchmarks/bench_training.py --size full --batch 2 --repeats 3
    python benchmarks/bench_training.py --size demo --batch 16 --repeats 9
    python benchmarks/bench_training.py --size full --batch 2 --layers
    python benchmarks/bench_training.py --size full --batch 16 --memory
    python benchmarks/bench_training.py --device cuda --batch 16 --repeats 20 --variants "plain tf32" "plain bf16" \\
        "ours fp32" "ours tf32" "ours bf16" "ours bf16 compiled" "ours bf16 graphed" "ours bf16 compiled graphed"
    python benchmarks/bench_training.py --quality 600 --variants "ours fp32" "ours bf16"

A variant is ``kind precision [options]``: kind ``plain``, ``stock`` (plain with the C library's own memory settings; the others keep
freed memory, see ``sst.train.keep_freed_memory``) or ``ours``; precision ``fp32``, ``tf32`` or ``bf16``; options ``compiled`` (D and G step;
R1 and path length stay eager) and ``graphed`` (CUDA graphs of every step), both by the functions that train with them (``fit.compile``); ``unkept`` (the C library's own memory settings).
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))
sys.path.insert(0, str(Path(__file__).parent))

from _training_steps import Steps
from reference import PlainDiscriminator, PlainGenerator

from sst.nn import Discriminator, Generator
from sst.nn.ops._product import matmul
from sst.train import keep_freed_memory
from sst.train._compile import WARM_UP, aside, record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIZES: dict[str, dict[str, Any]] = {
    "full": {"resolution": 128},
    "demo": {"resolution": 32, "channel_base": 2048, "channel_max": 64},
    "demo-narrow": {"resolution": 32, "channel_base": 1024, "channel_max": 64},
}
GENES = {"full": 1000, "demo": 60, "demo-narrow": 60}


def build(size: str) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    shape: dict[str, Any] = {"img_channels": 2, **SIZES[size]}
    if size == "full":  # the paper's
        paper: dict[str, Any] = {"gene_inputs": ("kernel",), "kernel_offset": 0.0, "input_transform": "counts"}
        return Generator(1000, **paper, **shape), Discriminator(conditioning="label", **shape)
    small: dict[str, Any] = {"z_dim": 64, "w_dim": 64, "mapping_layers": 2, "gene_layers": 3, "gene_width": 64}
    return Generator(60, **small, **shape), Discriminator(n_genes=60, embed_dim=64, **shape)


def variants(size: str, batch: int, device: str, names: list[str]) -> dict[str, Steps]:
    g, d = (m.to(device) for m in build(size))
    out = {}
    for name in names:
        kind, precision = name.split()[:2]
        pair = (g, d) if kind == "ours" else (PlainGenerator(g), PlainDiscriminator(d))
        out[name] = Steps(pair[0], pair[1], batch, GENES[size], device, torch.bfloat16 if precision == "bf16" else None)
        if "compiled" in name:
            out[name].compile()
    return out


def prepare(name: str) -> None:
    """Process-wide settings that a variant is timed under."""
    torch.set_float32_matmul_precision("high" if "tf32" in name else "highest")
    torch.backends.cudnn.allow_tf32 = "tf32" in name
    if name.startswith("stock") or "unkept" in name:
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 32 * 2**20)  # where glibc's thresholds end up by themselves
        libc.mallopt(-1, 64 * 2**20)
        libc.malloc_trim(0)
    else:
        keep_freed_memory()


def graphed(call: Callable[[], None]) -> Callable[[], None]:
    """The call recorded as a CUDA graph, as training records its phases."""
    device = torch.device("cuda", torch.cuda.current_device())
    for _ in range(WARM_UP):
        with aside(device):
            call()
    return record(call, device)[1]


def seconds(call: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, device: str, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each call, the calls taking turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            prepare(name)
            taken = seconds(call, device, clock)
            if repeat:  # the first round warms up
                times[name].append(taken)
    return {name: statistics.median(t) for name, t in times.items()}


def table(rows: dict[str, dict[str, float]], base: str) -> None:
    names = list(next(iter(rows.values())))
    print(
        f"| {'':16} | " + " | ".join(f"{n} ms" for n in names) + " | " + " | ".join(f"{n} x" for n in names[1:]) + " |"
    )
    print("|---" * (2 * len(names)) + "|")
    for row, values in rows.items():
        cells = [f"{values[n] * 1e3:.1f}" for n in names]
        ratios = [f"{values[base] / values[n]:.2f}" for n in names[1:]]
        print(f"| {row:16} | " + " | ".join(cells + ratios) + " |", flush=True)


def steps_table(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    steps = variants(args.size, args.batch, args.device, args.variants)
    rows = {}
    for phase in next(iter(steps.values())).all:
        calls = {n: graphed(s.all[phase]) if "graphed" in n else s.all[phase] for n, s in steps.items()}
        rows[phase] = interleaved(calls, args.repeats, args.device, clock)
        print(phase, {n: round(t * 1e3, 1) for n, t in rows[phase].items()}, file=sys.stderr, flush=True)
    parts = {"D step": 1, "G step": 1, "R1": 1 / 16, "path length": 1 / 4}
    rows["iteration"] = {n: sum(rows[p][n] * f for p, f in parts.items()) for n in steps}
    table(rows, args.variants[0])
    if args.device == "cuda":
        for name in steps:
            taken = rows["iteration"][name]
            print(f"{name}: {args.batch / taken:.0f} images/s, {taken * 1e3:.1f} ms an iteration")
    if args.size == "full":
        for name in steps:
            rate = 0.819 * args.batch / rows["iteration"][name]  # 13.1 TFLOP an iteration at batch 16
            print(f"{name}: {rate:.3f} TFLOP/s")
    print("largest matrix products:", {p: f"{peak(p, args.device, clock):.3f} TFLOP/s" for p in ("fp32", "bf16")})


def peak(precision: str, device: str, clock: Callable[[], float]) -> float:
    """TFLOP/s of the product that the networks use, at a size that suits it."""
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16 if precision == "bf16" else None) for _ in range(2))
    taken = interleaved({precision: lambda: matmul(a, b)}, 5, device, clock)[precision]
    return 2 * n**3 / taken / 1e12


def layers_table(args: argparse.Namespace, clock: Callable[[], float]) -> None:
    """Forward and backward of every layer of the generator, all gradients."""
    g: Any = build(args.size)[0].to(args.device)
    plain = PlainGenerator(g)
    rows = {}
    for n, layer in enumerate(g.convs):
        size = g.noise_shapes[n][0] // (2 if layer.up else 1)
        i = layer.affine.weight.shape[0]
        rows[f"{size} -> {2 * size} px" if layer.up else f"{size} px"] = one_layer(args, clock, g, plain, n, size, i)
    for n, layer in enumerate(g.to_images):
        i = layer.affine.weight.shape[0]
        rows[f"{4 * 2**n} px to image"] = one_layer(args, clock, g, plain, n, 4 * 2**n, i, image=True)
    table(rows, args.variants[0])


def one_layer(args, clock, g, plain, n, size, i, *, image: bool = False) -> dict[str, float]:
    b = args.batch
    make = {"device": args.device}
    x, w = torch.randn(b, size, size, i, **make), torch.randn(b, g.w_dim, **make, requires_grad=True)
    taps = torch.randn(b, 3, 3, **make, requires_grad=True)
    noise = torch.randn(b, *g.noise_shapes[n], 1, **make)
    calls: dict[str, Callable[[], object]] = {}
    for name in args.variants:
        kind, precision = name.split()[:2]
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        ours = kind == "ours"
        maps = x if ours else x.permute(0, 3, 1, 2).contiguous()
        maps = maps.to(dtype).requires_grad_()

        def call(ours=ours, maps=maps, low=dtype == torch.bfloat16) -> None:
            with torch.autocast(args.device, torch.bfloat16, enabled=low and not ours):
                if image:
                    y = g.to_images[n](maps, w, taps) if ours else plain.to_image(n, maps, w, taps)
                else:
                    y = g.convs[n](maps, w, taps, noise) if ours else plain.layer(n, maps, w, taps, noise)
            for parameter in (maps, w, taps, *g.parameters(), *plain.parameters()):
                parameter.grad = None
            y.backward(torch.ones_like(y))

        calls[name] = call
    return interleaved(calls, args.repeats, args.device, clock)


def _peak(size: str, batch: int, name: str, phase: str, queue) -> None:
    torch.set_num_threads(1)
    prepare(name)
    steps = variants(size, batch, "cpu", [name])[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps.all[phase]()
    queue.put((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)


def memory_table(args: argparse.Namespace) -> None:
    """Peak memory of a step above that of the networks themselves, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    print("| | " + " | ".join(f"{v} GiB" for v in args.variants) + " |")
    print("|---" * (1 + len(args.variants)) + "|")
    for phase in args.phases:
        cells = []
        for name in args.variants:
            queue = context.Queue()
            process = context.Process(target=_peak, args=(args.size, args.batch, name, phase, queue))
            process.start()
            cells.append(f"{queue.get():.2f}")
            process.join()
        print(f"| {phase} | " + " | ".join(cells) + " |", flush=True)


def quality_table(args: argparse.Namespace) -> None:
    """The demo's training on simulated cells in each precision, the same steps: distances, and fidelity on held-out cells."""
    import tempfile

    import numpy as np
    from bench_faithfulness import CAUSAL, measure, rank, tissue

    import sst
    from sst.train import GANConfig

    sst.settings.progress = False
    adata = tissue(3000, 0, 32)
    test = (adata.obs["split"] == "test").to_numpy()
    groups = adata.obs["condition"].astype(str).to_numpy()
    rows = {g: np.flatnonzero(test & (groups == g))[:300] for g in sorted(set(groups))}
    real = {g: measure(np.asarray(adata.obsm["crops"][r])) for g, r in rows.items()}
    print("| precision | seed | s | distance | of images | diversity | fidelity marker | fidelity area |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in args.seeds:
        for name in args.variants:
            config = GANConfig.preset("demo").replace(
                fit__precision=name.split()[1], fit__iterations=args.quality, fit__evaluate_every=args.quality,
                fit__checkpoint_every=0, fit__sample_every=0, fit__keep_every=0,
            )  # fmt: skip
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as out:
                gan = sst.tl.train_gan(adata, config=config, out=out, seed=seed, device=args.device)
            spent = time.perf_counter() - began
            last = gan.history[["distance", "distance_images", "diversity"]].dropna().iloc[-1]
            found = {}
            for feature, genes in CAUSAL.items():
                ratios = []
                for g, r in rows.items():
                    made, counts = measure(gan.generate(adata[r]))[feature], adata.X[r].toarray()
                    columns = [counts[:, adata.var_names.get_loc(gene)] for gene in genes]
                    ours, theirs = (np.mean([rank(c, v) for c in columns]) for v in (made, real[g][feature]))
                    ratios.append(f"{ours / theirs:.2f}")
                found[feature] = " / ".join(ratios)
            cells = [f"{last[n]:.1f}" for n in ("distance", "distance_images")] + [f"{last['diversity']:.2f}"]
            print(f"| {name.split()[1]} | {seed} | {spent:.0f} | {' | '.join([*cells, *found.values()])} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="full")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--variants", nargs="+", default=["plain fp32", "ours fp32", "ours bf16"])
    parser.add_argument("--clock", choices=["wall", "process"], default="wall")
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument(
        "--quality", type=int, metavar="STEPS", help="train the demo for so many steps in each precision"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--phases", nargs="+", default=["G step", "path length"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time if args.clock == "process" else time.perf_counter
    if args.quality:
        quality_table(args)
    elif args.memory:
        memory_table(args)
    elif args.layers:
        layers_table(args, clock)
    else:
        steps_table(args, clock)


if __name__ == "__main__":
    main()
