"""Inversion on simulated tissue: reconstruction against trivial answers, identity, effects of an edit, refinement, speed.

    python benchmarks/bench_inversion.py data gan clip inversion measure --out bench_inversion --size 64
    python benchmarks/bench_inversion.py speed

Stages leave their results in --out and can be run one at a time. Recorded results: RESULTS_inversion.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import torch

import sst
from sst.metrics import psnr, ssim

if TYPE_CHECKING:
    from collections.abc import Callable

STAGES = ("data", "gan", "clip", "inversion", "measure", "picture", "speed")
EDITS = {"marker (HLA-A, B2M)": ["HLA-A", "B2M"], "null (APOA1, TTR)": ["APOA1", "TTR"]}


def table(rows: list[tuple], header: tuple[str, ...]) -> None:
    widths = [max(len(str(r[k])) for r in [header, *rows]) for k in range(len(header))]
    for row in [header, tuple("-" * w for w in widths), *rows]:
        print("| " + " | ".join(str(v).ljust(w) for v, w in zip(row, widths, strict=True)) + " |")
    print(flush=True)


def dense(matrix: Any) -> np.ndarray:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix, dtype=np.float64)


def make_data(args: argparse.Namespace) -> None:
    tissue = sst.datasets.simulate_tissue(n_cells=args.cells, n_genes=60, fovs=12, seed=0)
    adata = tissue.to_adata(size=64, output_size=args.size)
    sst.pp.rescale_intensity(adata, groupby="condition")
    sst.pp.train_test_split(adata, by="fov")
    adata.write_h5ad(args.out / "cells.h5ad")
    print(adata.n_obs, "cells:", adata.obs["split"].value_counts().to_dict(), flush=True)


def read(args: argparse.Namespace) -> ad.AnnData:
    adata = ad.read_h5ad(args.out / "cells.h5ad")
    for name in ("gan", "clip", "inversion"):
        if (args.out / name / "config.json").exists():
            sst.models.remember(adata, name, args.out / name, image_model=name != "clip")
    return adata


def train_gan(args: argparse.Namespace) -> None:
    config = sst.train.GANConfig.preset("demo").replace(
        fit__iterations=args.gan_iterations,
        fit__batch_size=args.gan_batch,
        generator__channel_base=1024,
        discriminator__channel_base=1024,
        fit__evaluate_every=0,
        fit__sample_every=0,
    )
    start = time.process_time()
    model = sst.tl.train_gan(read(args), config=config, out=args.out / "gan", max_seconds=args.seconds, use="last")
    report("gan", model, start)


def train_clip(args: argparse.Namespace) -> None:
    start = time.process_time()
    model = sst.tl.train_clip(
        read(args), preset="demo", out=args.out / "clip", iterations=args.clip_iterations, max_seconds=args.seconds
    )
    report("clip", model, start)
    names = [f"{a}_to_{b}_top{k}" for a, b in (("image", "expression"), ("expression", "image")) for k in (1, 10)]
    rows = [(n, f"{model.metrics[n]:.3f}", f"{model.metrics['chance_top' + n.split('top')[1]]:.4f}") for n in names]
    table(rows, ("held-out retrieval", "share", "chance"))


def train_inversion(args: argparse.Namespace) -> None:
    start = time.process_time()
    model = sst.tl.train_inversion(
        read(args),
        preset="demo",
        out=args.out / "inversion",
        iterations=args.iterations,
        max_seconds=args.seconds,
        batch_size=args.batch,
    )
    report("inversion", model, start)
    print("losses:", model.config.training.loss.perceptual, model.config.training.loss.identity)


def report(name: str, model: Any, start: float) -> None:
    last = model.history.index.max()
    print(f"{name}: {last} iterations in all, {time.process_time() - start:.0f} s of CPU time in this run", flush=True)


def trivial(train: ad.AnnData, test: ad.AnnData) -> dict[str, np.ndarray]:
    """The two answers to beat: the mean crop of a cell's group, and the training crop nearest to it in pixels."""
    crops = train.obsm["crops"]
    group = train.obs["condition"].astype(str).to_numpy()
    means = {g: np.rint(crops[group == g].mean(0)).astype(np.uint8) for g in set(group)}
    flat, own = (torch.from_numpy(a.obsm["crops"]).flatten(1).float() for a in (train, test))
    nearest = torch.cdist(own, flat).argmin(1).numpy()
    return {
        "mean crop of the group": np.stack([means[g] for g in test.obs["condition"].astype(str)]),
        "nearest training crop": crops[nearest],
    }


def measure(args: argparse.Namespace) -> None:
    adata = read(args)
    split = adata.obs["split"].astype(str).to_numpy()
    train, test = adata[split == "train"].copy(), adata[split == "test"].copy()
    inversion = sst.models.Inversion.load(args.out / "inversion")
    if test.n_obs > args.test_cells:
        whole, test = test, test[np.random.default_rng(0).permutation(test.n_obs)[: args.test_cells]].copy()
    else:
        whole = test
    real = test.obsm["crops"]
    answers = {name: (images, 0.0) for name, images in trivial(train, test).items()}
    for label, options in (
        ("encoder", {}),
        ("encoder, 1 further pass", {"refine": 1}),
        ("encoder, 2 further passes", {"refine": 2}),
        ("encoder, 10 optimisation steps", {"refine_steps": 10}),
        ("encoder, 40 optimisation steps", {"refine_steps": 40}),
        *((f"encoder, {k} optimisation steps", {"refine_steps": k}) for k in args.more_steps),
    ):
        start = time.process_time()
        answers[label] = (inversion.generate(test, **options), (time.process_time() - start) / test.n_obs)
    channels = list(inversion.registry.channels)
    rows = []
    for label, (images, seconds) in answers.items():
        per = [f"{psnr(real[:, [k]], images[:, [k]]).mean():.2f}" for k in range(len(channels))]
        per += [f"{ssim(real[:, [k]], images[:, [k]]).mean():.3f}" for k in range(len(channels))]
        rows.append(
            (
                label,
                f"{psnr(real, images).mean():.2f}",
                f"{ssim(real, images).mean():.3f}",
                *per,
                f"{1000 * seconds:.1f}",
            )
        )
    print(f"{test.n_obs} held-out cells, {train.n_obs} training cells, {real.shape[-1]} px\n")
    header = (
        "answer",
        "PSNR (dB)",
        "SSIM",
        *(f"PSNR {c}" for c in channels),
        *(f"SSIM {c}" for c in channels),
        "CPU ms/cell",
    )
    table(rows, header)
    measure_identity(inversion, real, answers)
    for label, genes in EDITS.items():
        measure_edit(args, inversion, train, whole, label, genes)


def measure_identity(inversion: Any, real: np.ndarray, answers: dict) -> None:
    """CLIP-image cosine to the real cell, beside that of the cell turned by 90, 180, 270 degrees."""
    own = inversion.embed_images(real)
    turned = [np.sum(inversion.embed_images(np.rot90(real, k, (2, 3)).copy()) * own, 1).mean() for k in (1, 2, 3)]
    reference = float(np.mean(turned))
    shifted = np.sum(np.roll(own, 1, axis=0) * own, 1).mean()
    rows = []
    for label, (images, _) in answers.items():
        value = float(np.sum(inversion.embed_images(images) * own, 1).mean())
        rows.append((label, f"{value:.3f}", f"{value / reference:.3f}"))
    rows.append(("the cell itself, turned (reference)", f"{reference:.3f}", "1.000"))
    rows.append(("another cell", f"{shifted:.3f}", f"{shifted / reference:.3f}"))
    table(rows, ("identity", "cosine", "of the reference"))


def measure_edit(
    args: argparse.Namespace, inversion: Any, train: ad.AnnData, test: ad.AnnData, label: str, genes: list[str]
) -> None:
    """Cell by cell: does the marker's mean intensity follow the edit of each cell's own genes?"""
    both = ad.concat([train, test], uns_merge="same", merge="same")
    sst.tl.edit(both, genes=genes, groupby="condition", source="normal", target="tumor", method="scm", model=None)
    cells = both[(both.obs["split"] == "test") & (both.obs["condition"] == "normal")].copy()
    images = sst.models.effects_apart(inversion, cells, "edited", 1.0)
    sst.models.remember(cells, "inversion", args.out / "inversion")
    columns = [cells.var_names.get_loc(g) for g in genes]
    change = (dense(cells.layers["edited"]) - dense(cells.X))[:, columns].sum(1)
    feature = {k: v[:, 0].astype(np.float64).mean((1, 2)) for k, v in images.items()}
    rows = [expected(train, cells, genes)]
    for name, after, before in (
        ("fade only (t = 1, own genes)", "fade_only", "reconstructed"),
        ("genes only (t = 0, edited)", "genes_only", "reconstructed"),
        ("both", "both", "reconstructed"),
        ("genes at full fade (both - fade only)", "both", "fade_only"),
    ):
        delta = feature[after] - feature[before]
        use = (change != 0) & (delta != 0)
        right = int((np.sign(delta[use]) == np.sign(change[use])).sum())
        rows.append((name, f"{delta.mean():+.3f}", f"{right}/{int(use.sum())}"))
    moved = np.sign(change).astype(int)
    print(
        f"edit of {label}, normal -> tumor, {cells.n_obs} held-out cells ({(moved > 0).sum()} up, {(moved < 0).sum()} down)\n"
    )
    table(
        rows,
        (
            "effect",
            "mean change of the marker (grey values)",
            "cells in the genes' direction",
        ),
    )
    for name in ("fade_only", "genes_only", "both"):
        cells.obsm[name] = images[name]
        sst.tl.identity(cells, key=name)
    kept = [
        (name, f"{cells.obs[f'{name}_identity'].mean():.3f}", f"{cells.obs[f'{name}_background_psnr'].mean():.2f}")
        for name in ("fade_only", "genes_only", "both")
    ]
    table(kept, ("against the real cell", "identity (cosine)", "background PSNR (dB)"))


def expected(train: ad.AnnData, cells: ad.AnnData, genes: list[str]) -> tuple[str, str, str]:
    """What real cells say of such an edit: linear regression of the marker on log counts of both pairs of genes, training cells."""
    columns = [train.var_names.get_loc(g) for pair in EDITS.values() for g in pair]
    before, after, known = (np.log1p(dense(m))[:, columns] for m in (cells.X, cells.layers["edited"], train.X))
    marker = train.obsm["crops"][:, 0].astype(np.float64).mean((1, 2))
    slope = np.linalg.lstsq(np.column_stack([known, np.ones(len(known))]), marker, rcond=None)[0][:-1]
    change = (after - before) @ slope
    return (
        f"(regression on real cells: {', '.join(genes)})",
        f"{change.mean():+.3f}",
        f"{(change > 0).sum()}/{len(change)}",
    )


def picture(args: argparse.Namespace) -> None:
    """Held-out normal cells, their reconstructions, and the three effects of an edit of the marker's genes: docs/figures/inversion.png."""
    import matplotlib.pyplot as plt

    from sst.pl._drawing._style import to_rgb

    adata = read(args)
    sst.tl.edit(adata, genes=EDITS["marker (HLA-A, B2M)"], groupby="condition", method="ot", model=None)
    chosen = ((adata.obs["split"] == "test") & (adata.obs["condition"] == "normal")).to_numpy().nonzero()[0]
    cells = adata[chosen[np.random.default_rng(0).permutation(len(chosen))[:9]]].copy()
    inversion = sst.models.Inversion.load(args.out / "inversion")
    images = {"real": cells.obsm["crops"], **sst.models.effects_apart(inversion, cells, "edited", 1.0)}
    names = {
        "real": "real",
        "reconstructed": "reconstructed",
        "genes_only": "genes edited\n(code kept)",
        "fade_only": "code faded\n(own genes)",
        "both": "genes edited,\ncode faded",
    }
    figure, axes = plt.subplots(len(names), cells.n_obs, figsize=(cells.n_obs + 1.2, len(names)), layout="constrained")
    for row, (key, label) in zip(axes, names.items(), strict=True):
        for ax, image in zip(row, to_rgb(np.minimum(images[key] * 1.6, 255)), strict=True):
            ax.imshow(image, interpolation="nearest")
            ax.set(xticks=[], yticks=[], frame_on=False)
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    figure.savefig(args.out / "inversion.png", dpi=110)


def speed(args: argparse.Namespace) -> None:
    """One training step, ours and plain, interleaved; CPU time, one thread."""
    torch.set_num_threads(1)
    rows = []
    for size, batch in ((32, 16), (64, 8)):
        steps = make_steps(size, batch)
        times: dict[str, list[float]] = {name: [] for name in steps}
        for repeat in range(args.repeats + 1):
            for name, step in steps.items():
                start = time.process_time()
                step()
                if repeat:
                    times[name].append(time.process_time() - start)
        plain, ours = (1000 * statistics.median(times[n]) for n in ("plain", "ours"))
        rows.append((f"{size} px, batch {batch}", f"{plain:.0f}", f"{ours:.0f}", f"{plain / ours:.2f}"))
    table(rows, ("step (demo sizes, fp32, one thread)", "plain, CPU ms", "ours, CPU ms", "ratio"))


def make_steps(size: int, batch: int) -> dict[str, Callable[[], None]]:
    """The same step twice: forward, loss and gradients of the encoder."""
    from sst.models._weights import make_distances
    from sst.nn import ClipTowers, Generator, PixelEncoder, base_code, decode
    from sst.train import GANConfig, InversionConfig, inversion_loss, to_dict

    torch.manual_seed(0)
    generator = Generator(60, img_channels=2, resolution=size, **to_dict(GANConfig.preset("demo").generator))
    towers = ClipTowers(60, 2, dim=64, widths=(16, 32, 48, 64)).eval()
    config = InversionConfig.preset("demo").replace(loss__perceptual="clip", loss__identity="clip")
    e = config.encoder
    shape = {"num_styles": generator.num_styles, "w_dim": generator.w_dim, "head_width": e.head_width}
    encoder = PixelEncoder(2, size, widths=e.widths, depths=e.depths, **shape)
    perceptual, identity = make_distances(config.loss, towers)
    real = torch.rand(batch, 2, size, size) * 2 - 1
    counts = torch.randint(0, 9, (batch, 60)).float()

    def ours() -> None:
        generator.requires_grad_(False)
        towers.requires_grad_(False)
        encoder.zero_grad()
        with torch.no_grad():
            base = base_code(generator, towers.encode_image(real))
            parts = (0.5, perceptual, perceptual.targets(real)), (0.5, identity, identity.targets(real))
        out = decode(generator, base, encoder(real), counts)
        inversion_loss(out, real, l2=15, perceptual=parts[0], identity=parts[1])["total"].mean().backward()

    def plain() -> None:
        """As it is usually written: nothing frozen for autograd, losses cell by cell, targets with gradients."""
        generator.requires_grad_(True)
        towers.requires_grad_(True)
        for network in (encoder, generator, towers):
            network.zero_grad()
        out = decode(generator, base_code(generator, towers.encode_image(real)), encoder(real), counts)
        total = torch.zeros(())
        for k in range(batch):
            one, target = out[k : k + 1], real[k : k + 1]
            total = total + 15 * torch.nn.functional.mse_loss(one, target)
            total = total + 0.5 * perceptual(one, perceptual.targets(target)).mean()
            total = total + 0.5 * identity(one, identity.targets(target)).mean()
        (total / batch).backward()

    gradients = []
    for step in (plain, ours):  # they must be the same step
        encoder.eval()
        step()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]))
    difference = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    if difference > 1e-3:
        msg = f"the two steps differ: relative difference of the gradients {difference:.1e}."
        raise RuntimeError(msg)
    encoder.train()
    return {"plain": plain, "ours": ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=STAGES)
    parser.add_argument("--out", type=Path, default=Path("bench_inversion"))
    parser.add_argument("--size", type=int, default=64, help="px of the crops")
    parser.add_argument("--cells", type=int, default=2500, help="cells a slide")
    parser.add_argument("--gan-iterations", type=int, default=500)
    parser.add_argument("--gan-batch", type=int, default=16)
    parser.add_argument("--clip-iterations", type=int, default=600)
    parser.add_argument("--iterations", type=int, default=1000, help="of the inversion")
    parser.add_argument("--batch", type=int, default=8, help="of the inversion")
    parser.add_argument("--test-cells", type=int, default=128, help="held-out cells for reconstruction and identity")
    parser.add_argument("--more-steps", type=int, nargs="*", default=[], help="further numbers of optimisation steps")
    parser.add_argument("--seconds", type=float, default=None, help="at most so many seconds a training stage")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    functions = {
        "data": make_data,
        "gan": train_gan,
        "clip": train_clip,
        "inversion": train_inversion,
        "measure": measure,
        "picture": picture,
        "speed": speed,
    }
    for stage in args.stages:
        functions[stage](args)


if __name__ == "__main__":
    main()
