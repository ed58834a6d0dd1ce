"""Do generated cells look like cells, and do their genes still act? A generator's pictures and its guards, at a fixed number of steps.

    python benchmarks/bench_generator.py --seeds 0 1 2                         # the demo's cells and preset, held-out fields
    python benchmarks/bench_generator.py --seeds 0 1 2 --set loss__relativistic=true
    python benchmarks/bench_generator.py --choose --steps 1000                 # to choose settings by: fields of the training slides are held out instead
    python benchmarks/bench_generator.py --seeds 0 --editor                    # an editor that turns training cells, by the same figures

A model that lies in ``--out`` already is measured, not trained again. CPU seconds are of the training's process.

Pictures, over held-out cells: the Frechet distances and the diversity of :func:`sst.tl.train_gan`; precision and recall in the same
space; spectral power above half the Nyquist frequency, a channel, and the variance of the outermost pixels relative to the inner ones,
both relative to real cells; the share of images that are nearer to a training cell, turned or mirrored, than the median real held-out cell is (half: no
copies). Floor: as many real training cells in the place of generated ones.

Guards: rank correlation of a driving gene with its feature within a group, generated / real; change of a feature's mean after an edit (``ot``)
relative to that of the true counterfactuals (all, chosen) or to the gap between the slides (null).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench_editor import GROUPS, features, fine_power, montage, prepare
from scipy.stats import spearmanr

import sst
from sst.metrics import PixelPCA, frechet_distance, precision_recall
from sst.train import EditorConfig, GANConfig

MEASURED = 2000  # held-out cells whose pictures are measured
AREA, MARKER = 0, 1  # columns of features()


class Pictures:
    """Figures of images made for the held-out cells ``rows``."""

    def __init__(self, adata, rows):
        crops = np.asarray(adata.obsm["crops"])
        train = np.flatnonzero((adata.obs["split"] == "train").to_numpy())
        self.real, self.train = crops[rows], crops[train]
        self.space = PixelPCA().fit([self.real])
        self.features = self.space(self.real)
        self.power, self.rim = fine_power(self.real), rim(self.real)
        flips = [self.train, self.train.transpose(0, 1, 3, 2)]
        self.trained = np.concatenate([self.space(x[:, :, ::i, ::j]) for x in flips for i in (1, -1) for j in (1, -1)])
        self.nearest = nearest(self.features, self.trained)
        self.counts = expression_part(adata.X[rows].toarray(), self.features)
        group = adata.obs["condition"].astype(str).to_numpy()
        rng = np.random.default_rng(0)
        self.floor = np.concatenate(
            [rng.choice(np.flatnonzero(group[train] == g), (group[rows] == g).sum()) for g in GROUPS]
        )

    def __call__(self, images, *, generated=True):
        found = self.space(images)
        cover = precision_recall(self.features, found)
        out = {"distance_images": frechet_distance(found, self.features)}
        if generated:
            out["nearer than real"] = (nearest(found, self.trained) < np.median(self.nearest)).mean()
            both = [np.hstack([part, self.counts]) for part in (found, self.features)]
            out["distance"] = frechet_distance(*both)
        out["diversity"] = np.sqrt(found.var(axis=0).sum() / self.features.var(axis=0).sum())
        out["precision"], out["recall"] = cover.precision, cover.recall
        for channel, k in (("marker", 0), ("DAPI", 1)):
            out[f"fine power {channel}"] = fine_power(images)[k] / self.power[k]
            out[f"rim {channel}"] = rim(images)[k] / self.rim[k]
        return {name: float(value) for name, value in out.items()}


def rim(images):
    """Mean variance over cells of the outermost two pixels, relative to that of the others, a channel."""
    variance = images.astype(float).var(axis=0)  # c x h x w
    edge = np.ones(variance.shape[1:], bool)
    edge[2:-2, 2:-2] = False
    return variance[:, edge].mean(axis=1) / variance[:, ~edge].mean(axis=1)


def nearest(points, centres):
    """Distance of each point to the nearest of the centres."""
    found = torch.cdist(torch.from_numpy(points).float(), torch.from_numpy(centres).float())
    return found.min(dim=1).values.numpy()


def expression_part(counts, image_features, components=24):
    """Principal components of log counts, of the images' total variance (as the training's ``distance`` has them)."""
    logged = np.log1p(counts.astype(float))
    u, s, _ = np.linalg.svd(logged - logged.mean(axis=0), full_matrices=False)
    scores = (u * s)[:, :components]
    return scores * np.sqrt(image_features.var(axis=0).sum() / scores.var(axis=0).sum())


def guards(adata, rows, sets, truths, make, tissue_genes):
    """Fidelity, and shares of true effects; ``make(cells, layer)`` draws images."""
    group = adata.obs["condition"].astype(str).to_numpy()[rows]
    cells = adata[rows].copy()
    real, before = features(np.asarray(cells.obsm["crops"])), features(make(cells, None))
    found = {}
    for column, name in ((MARKER, "marker"), (AREA, "nucleus_area")):
        for g in GROUPS:
            rho = {
                kind: np.mean(
                    [
                        rank(cells[group == g, gene].X.toarray().ravel(), x[group == g, column])
                        for gene in tissue_genes[name]
                    ]
                )
                for kind, x in (("real", real), ("generated", before))
            }
            found[f"fidelity: {name} {g}"] = rho["generated"] / rho["real"]
    for edit in ("all", "chosen", "null"):
        sst.tl.edit(adata, genes=sets[edit], groupby="condition", model=None, method="ot", key_added=f"x_{edit}")
        cells.layers[edit] = adata.layers[f"x_{edit}"][rows]
        after, true = features(make(cells, edit)), features(truths[edit])
        for column, name in ((MARKER, "marker"), (AREA, "nucleus_area")):
            for g, other in (GROUPS, GROUPS[::-1]):
                here = (group == g) & np.isfinite(before[:, column] + after[:, column])
                change = (after - before)[here, column].mean()
                gap = np.nanmean(real[group == other, column]) - np.nanmean(real[group == g, column])
                wanted = gap if edit == "null" else np.nanmean((true - real)[group == g, column])
                found[f"{edit}: {name} {g}"] = change / wanted
    return {name: float(value) for name, value in found.items()}


def rank(counts, values):
    fine = np.isfinite(values)
    return float(spearmanr(counts[fine], values[fine])[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cells", type=int, default=9000, help="cells a slide")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--choose", action="store_true", help="measure on fields of the training split")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings, such as loss__relativistic=true"
    )
    parser.add_argument("--editor", action="store_true", help="an editor that turns training cells instead")
    parser.add_argument("--neighbors", type=int, help="let it turn one of so many nearest training cells")
    parser.add_argument("--no-guards", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench_generator"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sst.settings.progress = False
    options.out.mkdir(parents=True, exist_ok=True)
    adata, sets, rows, truths = prepare(options.cells, options.choose)
    causes = {name: sets[name] for name in ("marker", "nucleus_area")}
    test = np.flatnonzero((adata.obs["split"] == "test").to_numpy())
    shown = np.sort(np.random.default_rng(0).permutation(test)[:MEASURED])
    pictures = Pictures(adata, shown)
    table = {"real training cells": pictures(pictures.train[pictures.floor], generated=False)}
    some = np.concatenate(
        [np.flatnonzero(adata.obs["condition"].astype(str).to_numpy()[shown] == g)[:8] for g in GROUPS]
    )
    kind, train, steps = (
        (sst.models.Editor, sst.tl.train_editor, None)
        if options.editor
        else (sst.models.GAN, sst.tl.train_gan, options.steps)
    )
    config = (EditorConfig if options.editor else GANConfig).preset("demo")
    config = config.replace(fit__evaluate_every=500, fit__checkpoint_every=0, fit__sample_every=0)
    config = config.replace(**{k: json.loads(v) for k, v in (s.split("=") for s in options.set)})
    sources = adata[(adata.obs["split"] == "train").to_numpy()].copy()
    for seed in options.seeds:
        folder, spent = options.out / f"seed{seed}", {}
        if (folder / "config.json").exists():
            model = kind.load(folder)
        else:
            began = time.process_time()
            model = train(adata, config=config, iterations=steps, out=folder, seed=seed, device="cpu")
            spent = {"CPU, s": time.process_time() - began}
            curve = model.history["distance_images" if "distance_images" in model.history else "distance"].dropna()
            print(f"seed {seed}: " + ", ".join(f"{i}: {d:.1f}" for i, d in curve.items()), flush=True)

        def make(cells, layer):
            if isinstance(model, sst.models.Editor):  # noqa: B023
                drawn, _ = model.draw(cells, sources, layer=layer, seed=seed, neighbors=options.neighbors)  # noqa: B023
                return drawn[:, 0]
            return model.generate(cells, layer=layer, seed=seed)  # noqa: B023

        images = make(adata[shown].copy(), None)
        table[f"seed {seed}"] = pictures(images) | spent
        if not options.no_guards:
            table[f"seed {seed}"] |= guards(adata, rows, sets, truths, make, causes)
        halves = [some[:8], some[8:]]
        montage(options.out / f"seed{seed}.png", [x[half] for half in halves for x in (pictures.real, images)])
        frame = pd.DataFrame(table)
        frame.to_csv(options.out / "table.csv")
        print(frame.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
