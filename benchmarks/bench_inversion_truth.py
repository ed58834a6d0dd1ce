"""How true an inversion's edits are: reconstruction, effects of genes apart, PSNR to the true counterfactual.

    python benchmarks/bench_inversion_truth.py data gan clip
    python benchmarks/bench_inversion_truth.py inversion --name today --set loss__response=60

The tissue, the cells and the truths are those of bench_editor.py. ``data``, ``gan`` and ``clip`` leave their results in --out, and every inversion
stands on the same ones. Everything is trained on training fields' crops and counts alone.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from bench_editor import GROUPS, db, features, montage, prepare

import sst
from sst.metrics import psnr, ssim

SETS = ("all", "chosen", "null")
ANSWERS = {"genes only": "genes_only", "genes and fade": "both"}


def make_data(options):
    """Cells with the edited expression of each set of genes, and the truths."""
    adata, sets, rows, truths = prepare(options.cells, False)
    for name in SETS:
        sst.tl.edit(adata, genes=sets[name], groupby="condition", model=None, method="ot", key_added=name)
    adata.write_h5ad(options.out / "cells.h5ad")
    np.savez(options.out / "truths.npz", rows=rows, **{name: truths[name] for name in SETS})


def train(options, adata, name):
    """Train a model of the demo's preset, unless it is there."""
    if (options.out / name / "config.json").exists():
        return
    start = time.process_time()
    limits = {
        "iterations": options.gan_iterations if name == "gan" else options.clip_iterations,
        "out": options.out / name,
    }
    if name == "gan":
        sst.tl.train_gan(adata, groupby="condition", preset="demo", use="last", **limits)
    else:
        sst.tl.train_clip(adata, preset="demo", **limits)
    print(f"{name}: {time.process_time() - start:.0f} s of CPU", flush=True)


def measure(model, adata, rows, truths):
    """Reconstruction, and of each edit with the code kept and faded: PSNR to the truth, shares and correlations of its effects."""
    cells = adata[rows].copy()
    real = np.asarray(cells.obsm["crops"])
    group = cells.obs["condition"].astype(str).to_numpy()
    before = features(real)[:, :2]
    found, kept = {}, {"real": real}
    for name in SETS:
        images = sst.models.effects_apart(model, cells, name, 1.0, progress=False)
        true = features(truths[name])[:, :2]
        if name == "all":
            made = kept["reconstructed"] = images["reconstructed"]
            found["reconstruction: PSNR, dB"] = float(psnr(real, made).mean())
            found["reconstruction: SSIM"] = float(ssim(real, made).mean())
            start = features(made)[:, :2]
        found[f"{name}: no edit, dB"] = float(np.median(db(real, truths[name])))
        found[f"{name}: no edit of the reconstruction, dB"] = float(np.median(db(made, truths[name])))
        for label, key in ANSWERS.items():
            found[f"{name}, {label}: PSNR, dB"] = float(np.median(db(images[key], truths[name])))
            after = features(images[key])[:, :2]
            for k, source in enumerate(GROUPS):
                for j, feature in enumerate(("marker", "area")[::-1]):
                    here = (group == source) & np.isfinite(before[:, j] + true[:, j] + after[:, j] + start[:, j])
                    got = (after - start)[here, j]
                    wanted = (true - before)[here, j]
                    if name == "null":
                        gap = np.nanmean(before[group == GROUPS[1 - k], j]) - np.nanmean(before[group == source, j])
                        found[f"{name}, {label}: {feature} {source}, of gap"] = float(got.mean() / gap)
                    else:
                        found[f"{name}, {label}: {feature} {source}, share"] = float(got.mean() / wanted.mean())
                        found[f"{name}, {label}: {feature} {source}, r"] = float(np.corrcoef(wanted, got)[0, 1])
        kept |= {f"{name} {key}": images[key] for key in ANSWERS.values()} | {f"{name} true": truths[name]}
    return found, kept, group


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=("data", "gan", "clip", "inversion"))
    parser.add_argument("--out", type=Path, default=Path("bench_inversion_truth"))
    parser.add_argument("--cells", type=int, default=9000, help="cells a slide")
    parser.add_argument("--gan-iterations", type=int, default=2000)
    parser.add_argument("--clip-iterations", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=1500, help="of the inversion")
    parser.add_argument("--seed", type=int, default=0, help="of the inversion")
    parser.add_argument("--name", default="inversion")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings, such as loss__response=0")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if "data" in options.stages:
        make_data(options)
    adata = ad.read_h5ad(options.out / "cells.h5ad")
    for name in ("gan", "clip"):
        if name in options.stages:
            train(options, adata, name)
    if "inversion" not in options.stages:
        return
    truths = dict(np.load(options.out / "truths.npz"))
    rows = truths.pop("rows")
    config = sst.train.InversionConfig.preset("demo").replace(
        **{k: json.loads(v) for k, v in (s.split("=") for s in options.set)}
    )
    start = time.process_time()
    model = sst.tl.train_inversion(
        adata, gan=options.out / "gan", clip=options.out / "clip", config=config,
        seed=options.seed, out=options.out / options.name, resume=False, iterations=options.iterations,
    )  # fmt: skip
    spent = time.process_time() - start
    found, kept, group = measure(model, adata, rows, truths)
    table = pd.Series(found | {"CPU, s": spent}, name=options.name)
    table.to_csv(options.out / f"{options.name}.csv")
    some = np.concatenate([np.flatnonzero(group == g)[:6] for g in GROUPS])
    montage(options.out / f"{options.name}.png", [x[some] for x in kept.values()])
    print(table.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
