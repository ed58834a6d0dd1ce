"""How much of a cell's picture its expression can tell, by linear means, beside what a trained CLIP finds.

    python benchmarks/bench_inversion.py data clip --clip-iterations 1500
    python benchmarks/bench_clip_ceiling.py

Ridge regression predicts simple features of the crops (or the simulator's own causes, which no crop shows so well) from log counts;
each held-out cell's partner is then sought by the Gaussian likelihood ratio log p(features | expression) - log p(features).
Recorded results: RESULTS_inversion.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
from sklearn.linear_model import RidgeCV

import sst

RINGS = (0, 4, 8, 12, 16, 22, 30, 50)  # px from the centre
CAUSES = ["true_nucleus_area", "true_marker", "true_texture", "true_depth", "true_elongation"]


def simple_features(crops: np.ndarray) -> np.ndarray:
    """Means and spreads in rings around the centre, quantiles, mean gradient, product of the first two channels."""
    h, w = crops.shape[2:]
    rows, columns = np.mgrid[:h, :w]
    radius = np.hypot(rows - h / 2 + 0.5, columns - w / 2 + 0.5)
    found = []
    for k in range(crops.shape[1]):
        images = crops[:, k].astype(np.float64)
        for low, high in zip(RINGS[:-1], RINGS[1:], strict=True):
            ring = images[:, (radius >= low) & (radius < high)]
            found += [ring.mean(1), ring.std(1)]
        flat = images.reshape(len(images), -1)
        found += [flat.mean(1), flat.std(1), *np.quantile(flat, (0.05, 0.25, 0.5, 0.75, 0.95, 0.99), axis=1)]
        found.append(np.hypot(*np.gradient(images, axis=(1, 2))).mean((1, 2)))
    if crops.shape[1] > 1:
        found.append((crops[:, 0].astype(np.float64) * crops[:, 1]).mean((1, 2)))
    return np.log1p(np.stack(found, axis=1))


def standard(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    return (values - values[train].mean(0)) / (values[train].std(0) + 1e-6)


def retrieval(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> list[str]:
    """R2, top-10 shares both ways, and mean rank (0 perfect, 0.5 guessing) of the likelihood ratio."""
    model = RidgeCV(np.logspace(0, 5, 16)).fit(x[train], y[train])
    guess = model.predict(x)
    ridge = 1e-3 * np.eye(y.shape[1])
    residual, total = (np.linalg.inv(np.cov(m.T) + ridge) for m in (y[train] - guess[train], y[train]))
    apart = (guess[test][:, None] - y[test][None]) @ np.linalg.cholesky(residual)
    alone = np.square(y[test] @ np.linalg.cholesky(total)).sum(1)
    score = -np.square(apart).sum(2) + alone  # expression x image
    r2 = 1 - np.square(y[test] - guess[test]).mean(0) / y[test].var(0)
    ranks = [(m >= np.diag(m)[:, None]).sum(1) for m in (score.T, score)]
    top = [f"{np.mean(r <= 10):.3f}" for r in ranks]
    return [
        f"{r2.mean():.2f} (most {r2.max():.2f})",
        *top,
        f"{np.mean([(r - 1).mean() for r in ranks]) / (len(score) - 1):.3f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench_inversion"), help="folder of bench_inversion.py")
    args = parser.parse_args()
    sst.settings.progress = False
    adata = ad.read_h5ad(args.out / "cells.h5ad")
    train, test = (np.flatnonzero(adata.obs["split"] == part) for part in ("train", "test"))
    x = standard(np.log1p(np.asarray(adata.X.toarray(), dtype=np.float64)), train)
    clip = sst.models.CLIP.load(args.out / "clip")
    m = clip.metrics
    rows = [
        (
            "CLIP",
            "-",
            *(f"{m[f'{a}_top10']:.3f}" for a in ("image_to_expression", "expression_to_image")),
            f"{m['rank']:.3f}",
        )
    ]
    for name, y in (
        ("ridge to simple features of the crops", simple_features(adata.obsm["crops"])),
        ("ridge to the CLIP's image embedding", clip.embed_images(adata).astype(np.float64)),
        ("ridge to the simulator's causes", adata.obs[CAUSES].to_numpy(dtype=np.float64)),
    ):
        rows.append((name, *retrieval(x, standard(y, train), train, test)))
    rows.append(("chance", "-", *[f"{10 / len(test):.3f}"] * 2, "0.5"))
    header = ("partner found by", "R2 of the features", "top-10, image to expression", "top-10, back", "mean rank")
    for row in (header, tuple("-" * len(h) for h in header), *rows):
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
