"""Do the genes matter? Conditioning schemes side by side on a simulated tissue, at the same number of steps.

Every variant is trained on the same cells; all figures are of held-out fields of view:

- fidelity: within-group Spearman of a driving gene with the feature it sets (HLA-A and B2M: mean marker intensity of the window;
  H2AZ1: nuclear area), generated / real;
- gap closed: change of the mean after an edit / difference of the real slides, for all genes, the causal ones, and as many that
  cause nothing but have the same levels in both slides (null).

    python benchmarks/bench_faithfulness.py --steps 2500 --variants paper label expression style full
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import sst
from sst import editing
from sst.metrics import nucleus_features
from sst.train import GANConfig

DEMO = GANConfig.preset("demo").replace(loss__taper=0.0)
LABEL = {"discriminator__conditioning": "label", "loss__mismatch": 0.0, "loss__alignment": 0.0}
SLOW = {"generator__style_lr_multiplier": 1.0, "discriminator__expression_lr_multiplier": 1.0}
PAPER = {"generator__kernel_offset": 0.0, "generator__input_transform": "counts"}
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {"generator__gene_inputs": ("kernel",)} | LABEL | PAPER,
    "label": {"generator__gene_inputs": ("kernel",)} | LABEL,
    "expression": {"generator__gene_inputs": ("kernel",), "loss__alignment": 0.0},
    "style": {"loss__alignment": 0.0} | SLOW,
    "infonce": {"loss__alignment": 1.0} | SLOW,
    "steady": {},
    "half": {"loss__taper": 0.5},
    "full": {"loss__taper": 0.25},
}
ABOUT = {
    "paper": "the published scheme: raw counts to the kernels, D sees the label",
    "label": "the same with log1p counts and kernels that start at identity",
    "expression": "D also projected on an expression embedding, mismatched pairs as fakes",
    "style": "the same, and genes also to the style",
    "infonce": "the same, and InfoNCE in D and G",
    "steady": "the same, and gene networks that learn 15 times faster, InfoNCE of weight 0.3",
    "half": "the same, mismatched pairs and the generator's InfoNCE tapered off over the second half",
    "full": "the same, tapered off over the last quarter (the default)",
}
CAUSAL = {"marker": ["HLA-A", "B2M"], "area": ["H2AZ1"]}
NULL = ["APOA1", "TTR", "SERPINA1"]


def tissue(cells: int, seed: int, side: int):
    """Paired cells of two slides, intensities rescaled, whole fields of view held out."""
    adata = sst.datasets.simulate_tissue(n_cells=cells, seed=seed).to_adata(
        size=64, output_size=side, channels=["CD298/B2M", "DAPI"]
    )
    sst.pp.rescale_intensity(adata, groupby="condition")
    sst.pp.train_test_split(adata, by="fov", seed=seed)
    return adata


def measure(images: np.ndarray) -> dict[str, np.ndarray]:
    table = nucleus_features(images, nucleus_channel=1, channels=["marker", "dapi"], n_jobs=1)
    return {"marker": table["marker_window_mean"].to_numpy(), "area": table["nucleus_area"].to_numpy()}


def rank(counts: np.ndarray, values: np.ndarray) -> float:
    fine = np.isfinite(values)
    return float(spearmanr(counts[fine], values[fine])[0])


def evaluate(gan, adata, method: str, n: int) -> dict:
    test = (adata.obs["split"] == "test").to_numpy()
    group = adata.obs["condition"].astype(str).to_numpy()
    first, second = sorted(set(group))
    rng = np.random.default_rng(0)
    rows = {g: np.sort(rng.permutation(np.flatnonzero(test & (group == g)))[:n]) for g in (first, second)}
    real = {g: measure(np.asarray(adata.obsm["crops"][r])) for g, r in rows.items()}
    counts = {g: adata.X[r].toarray() for g, r in rows.items()}
    before = {g: measure(gan.generate(adata[r])) for g, r in rows.items()}
    found: dict = {"fidelity": {}, "gap": {}}
    for feature, genes in CAUSAL.items():
        places = [adata.var_names.get_loc(x) for x in genes]
        ratio = [
            np.mean([rank(counts[g][:, j], before[g][feature]) for j in places])
            / np.mean([rank(counts[g][:, j], real[g][feature]) for j in places])
            for g in rows
        ]
        found["fidelity"][feature] = [round(float(r), 2) for r in ratio]
    operator = editing.get_operator(method)
    moments = {g: operator.summarize(adata.X[group == g]) for g in rows}
    edits: dict[str, list[str] | None] = {"all": None, "chosen": [g for v in CAUSAL.values() for g in v], "null": NULL}
    for source, target in ((first, second), (second, first)):
        edit = operator.fit(moments[source], moments[target])
        for name, edited in edits.items():
            at = None if edited is None else np.array([adata.var_names.get_loc(x) for x in edited])
            changed = adata[rows[source]].copy()
            changed.layers["edited"] = edit.apply(changed.X, genes=at)
            after = measure(gan.generate(changed, layer="edited"))
            for feature in CAUSAL:
                gap = np.nanmean(real[target][feature]) - np.nanmean(real[source][feature])
                share = (np.nanmean(after[feature]) - np.nanmean(before[source][feature])) / gap
                found["gap"].setdefault(name, {}).setdefault(feature, []).append(round(float(share), 2))
    return found


def row(found: dict) -> str:
    pair = lambda v: f"{v[0]:.2f} / {v[1]:.2f}"
    cells = [pair(found["fidelity"][f]) for f in CAUSAL]
    cells += [pair(found["gap"][name][f]) for name in ("all", "chosen", "null") for f in CAUSAL]
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--cells", type=int, default=6000, help="of each slide")
    parser.add_argument("--measured", type=int, default=400, help="held-out cells of each slide that are measured")
    parser.add_argument("--methods", nargs="+", default=["scm", "ot"], help="operators of the edits")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output-size", type=int, default=32, help="side of the images, px")
    parser.add_argument(
        "--every", type=int, default=0, help="measure the distance to held-out cells every so many steps"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder that keeps the models and results.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    sst.settings.progress = False
    adata = tissue(args.cells, args.seed, args.output_size)
    out = args.out or Path(tempfile.mkdtemp())
    print(
        f"{args.cells} cells a slide, {args.output_size} px, {args.steps} steps of {DEMO.fit.batch_size}; first / second slide as source\n"
    )
    print(
        "| variant | edit | s | fidelity marker | area | all: marker | area | chosen: marker | area | null: marker | area |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    results = {}
    for name in args.variants:
        config = DEMO.replace(**VARIANTS[name]).replace(
            fit__iterations=args.steps, fit__evaluate_every=args.every, fit__checkpoint_every=0, fit__sample_every=0
        )
        began = time.perf_counter()
        gan = sst.tl.train_gan(adata, config=config, out=out / name, seed=args.seed, device="cpu")
        spent = time.perf_counter() - began
        if args.every:
            distances = gan.history["distance"].dropna()
            print(f"<!-- {name}: distance " + ", ".join(f"{i}: {d:.1f}" for i, d in distances.items()) + " -->")
            sst.pl.training(gan, save=out / f"{name}.png")
        for method in args.methods:
            found = evaluate(gan, adata, method, args.measured)
            results[f"{name}/{method}"] = found | {"seconds": spent}
            print(f"| {name} | {method} | {spent:.0f} | {row(found)} |", flush=True)
    print("\n" + "\n".join(f"- {name}: {ABOUT[name]}" for name in args.variants))
    (out / "results.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
