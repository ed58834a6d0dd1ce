"""What the simulated tissue promises, measured: times, gaps between the slides, correlations of genes with what they cause."""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.stats import spearmanr

import sst

EDITS = {
    "HLA-A, B2M": ["HLA-A", "B2M"],
    "H2AZ1": ["H2AZ1"],
    "all genes": None,
    "APOA1, TTR, SERPINA1 (null)": ["APOA1", "TTR", "SERPINA1"],
}


@contextmanager
def timed(clock: dict[str, tuple[float, float]], name: str):
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    clock[name] = (time.perf_counter() - wall, time.process_time() - cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="easy", help="easy, realistic or confounded")
    parser.add_argument("--cells", type=int, help="of each slide (default: the preset's)")
    parser.add_argument("--fovs", type=int, help="of each slide (default: the preset's)")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="time the writers too")
    parser.add_argument("--figure", help="draw cells and their counterfactuals to this file, and nothing else")
    args = parser.parse_args()
    if args.figure:
        draw(args.figure, args.preset)
        return
    sst.settings.progress = False
    sst.datasets.simulate_tissue(n_cells=40, fovs=1, preset=args.preset).to_adata()  # compile
    for seed in range(args.seeds):
        clock: dict[str, tuple[float, float]] = {}
        with timed(clock, "simulate_tissue"):
            tissue = sst.datasets.simulate_tissue(args.cells, preset=args.preset, fovs=args.fovs, seed=seed)
        with timed(clock, "to_adata (64 -> 32 px, 2 stains)"):
            adata = tissue.to_adata()
        effects = {}
        for name, genes in EDITS.items():
            with timed(clock, "true_effect"):
                effects[name] = tissue.true_effect(genes, "normal", "tumor")
        if args.write:
            with tempfile.TemporaryDirectory() as folder:
                for layout in ("flat", "atomx", "release"):
                    with timed(clock, f"write_cosmx, {layout}"):
                        tissue.write_cosmx(Path(folder) / layout, layout=layout)
                with timed(clock, "write_xenium"):
                    tissue.write_xenium(Path(folder) / "xenium")
        report(adata, tissue, effects)
        if tissue.config.donors > 1:
            bounds(adata, tissue)
            credit(adata, tissue)
        print("\n| step | seconds | CPU seconds |\n|---|---|---|")
        for name, (wall, cpu) in clock.items():
            print(f"| {name} | {wall:.1f} | {cpu:.1f} |")
        print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def report(adata, tissue, effects) -> None:
    print(f"\n{tissue!r}; {adata.n_obs} cells whose window lies inside\n")
    crops = adata.obsm["crops"]
    marker = crops[:, 0].mean(axis=(1, 2))
    area = adata.obs["true_nucleus_area"].to_numpy()
    found = sst.metrics.nucleus_features(crops, nucleus_channel=1, pixel_size=adata.uns["crops"]["pixel_size"])
    measured = found["nucleus_area"].to_numpy()
    counts = adata.to_df()
    groups = tissue.config.groups
    print("| | " + " | ".join(groups) + " |\n|---|---|---|")
    rows: dict[str, list[str]] = {}
    for group in groups:
        mine = (adata.obs["condition"] == group).to_numpy()
        ok = mine & np.isfinite(measured)
        add = lambda name, value: rows.setdefault(name, []).append(value)
        add("marker, window mean (sd)", f"{marker[mine].mean():.0f} ({marker[mine].std():.0f})")
        add("nucleus, um2 (sd)", f"{area[mine].mean():.1f} ({area[mine].std():.1f})")
        add("transcripts a window", f"{counts[mine].sum(axis=1).mean():.0f}")
        for gene in ("HLA-A", "B2M"):
            add(f"Spearman {gene} ~ marker", f"{spearmanr(counts[gene][mine], marker[mine])[0]:.2f}")
        add("Spearman H2AZ1 ~ true area", f"{spearmanr(counts['H2AZ1'][mine], area[mine])[0]:.2f}")
        add("Spearman H2AZ1 ~ measured area", f"{spearmanr(counts['H2AZ1'][ok], measured[ok])[0]:.2f}")
        add("Spearman measured ~ true area", f"{spearmanr(measured[ok], area[ok])[0]:.3f}")
        add("median measured / true area", f"{np.median(measured[ok] / area[ok]):.3f}")
        add("Spearman SERPINA1 (null) ~ true area", f"{spearmanr(counts['SERPINA1'][mine], area[mine])[0]:.2f}")
        add("Spearman APOA1 (null) ~ marker", f"{spearmanr(counts['APOA1'][mine], marker[mine])[0]:.2f}")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(values) + " |")
    normal = (adata.obs["condition"] == groups[0]).to_numpy()
    print(f"\ngap: marker {marker[~normal].mean() / marker[normal].mean() - 1:+.0%}, ", end="")
    print(f"nucleus {area[~normal].mean() / area[normal].mean() - 1:+.0%}\n")
    print("| edit, normal -> tumor | marker, share of gap | nucleus, share of gap |\n|---|---|---|")
    for name, table in effects.items():
        print(f"| {name} | {table.loc['marker', 'share']:.2f} | {table.loc['nucleus_area', 'share']:.2f} |")


def bounds(adata, tissue) -> None:
    """How well a feature can be told at all: correlation with ridge regressions, whole slides held out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, cross_val_predict

    rows = tissue.causes.index.get_indexer(adata.obs_names)
    latent, slide = tissue.latent[rows], adata.obs["donor"].astype(str).to_numpy()
    counts = np.log1p(adata.X.toarray())
    print(
        "\n| feature | its genes' latent expression | all genes' | its genes' counts | all genes' |\n|---|---|---|---|---|"
    )
    for feature, genes in tissue.gene_sets().items():
        own = tissue.genes.index.isin(genes)
        if not (tissue.genes["causes"][own] != "").all():
            continue
        y = tissue.causes[feature].to_numpy()[rows]
        y = np.log(y / (1 - y)) if feature in {"two_nuclei", "membrane"} else np.log(y)
        found = []
        for values in (latent[:, own], latent, counts[:, own], counts):
            x = (values - values.mean(0)) / (values.std(0) + 1e-9)
            fit = RidgeCV(10.0 ** np.arange(-1, 5))
            found.append(
                np.corrcoef(cross_val_predict(fit, x, y, cv=GroupKFold(len(set(slide))), groups=slide), y)[0, 1]
            )
        print(f"| {feature} | " + " | ".join(f"{r:.2f}" for r in found) + " |")


def credit(adata, tissue) -> None:
    """What a ridge regression of each stain on the counts gives to genes, over all cells and within slides.

    The change of the log of the window's mean that it predicts, were the genes of a set as in the last group.
    """
    from sklearn.linear_model import RidgeCV

    counts, slide = np.log1p(adata.X.toarray()), adata.obs["donor"].astype(str).to_numpy()
    first = (adata.obs["condition"] == tissue.config.groups[0]).to_numpy()
    gap, spread = counts[~first].mean(0) - counts[first].mean(0), counts.std(0) + 1e-9
    sets = {name: tissue.genes.index.isin(genes) for name, genes in tissue.gene_sets().items()}
    shown = ["marker", "programme", "hidden", "type", "unrelated"]
    print("\n| stain, regression | gap | " + " | ".join(shown) + " |\n|---|---" + "|---" * len(shown) + "|")
    for channel, name in enumerate(adata.uns["crops"]["channels"]):
        y = np.log(adata.obsm["crops"][:, channel].mean(axis=(1, 2)))
        for how in ("all cells", "within slides"):
            x, z = counts / spread, y.copy()
            for s in np.unique(slide) if how == "within slides" else ():
                x[slide == s] -= x[slide == s].mean(0)
                z[slide == s] -= z[slide == s].mean()
            slope = RidgeCV(10.0 ** np.arange(0, 5)).fit(x, z).coef_ / spread
            found = " | ".join(f"{(slope * gap)[sets[k]].sum():.2f}" for k in shown)
            print(f"| {name}, {how} | {y[~first].mean() - y[first].mean():.2f} | {found} |")


def colours(image: np.ndarray, most: float) -> np.ndarray:
    image = image.astype(float)
    ring, dapi = np.clip((image[0] - 20) / most, 0, 1), np.clip((image[1] - 25) / 1200.0, 0, 1)
    return np.stack([0.35 * dapi, np.maximum(ring, 0.45 * dapi), dapi], axis=-1) ** 0.8


def draw(path: str, preset: Literal["easy", "realistic", "confounded"]) -> None:
    import matplotlib.pyplot as plt

    if preset == "easy":
        tissue = sst.datasets.simulate_tissue(n_cells=400, fovs=2, seed=4)
        edits = {
            "HLA-A, B2M\nas in tumor": ["HLA-A", "B2M"],
            "H2AZ1\nas in tumor": "H2AZ1",
            "all genes\nas in tumor": None,
            "APOA1, TTR\n(null edit)": ["APOA1", "TTR"],
        }
    else:
        tissue = sst.datasets.simulate_tissue(preset=preset, n_cells=120, fovs=2, seed=4)
        of = {
            name: genes
            for name, genes in tissue.gene_sets().items()
            if genes[0] in tissue.genes.query("causes != ''").index
        }
        edits = {f"{', '.join(genes)}\n({name})": genes for name, genes in of.items()} | {"all genes": None}
    cells = tissue.to_adata()
    names = cells.obs_names[cells.obs["condition"] == "normal"]
    names = names[40:49] if preset == "easy" else names[2:26:3]
    shown = {"as it is": tissue} | {k: tissue.counterfactual(genes, "normal", "tumor") for k, genes in edits.items()}
    most = 750.0 if preset == "easy" else 1500.0
    figure = plt.figure(figsize=(13, 5.6 if preset == "easy" else 10.5), layout="constrained")
    sides: Any = figure.subfigures(1, 2, width_ratios=[1, 2.0 if preset == "easy" else 1.6])
    left, right = sides
    slides = tissue.config.slides[:: tissue.config.donors]
    for axis, slide in zip(left.subplots(2, 1), slides, strict=True):
        view = tissue.draw(slide, 1, channels=["CD298/B2M", "DAPI"], transcripts=False)
        axis.imshow(colours(view.images[:, 150:600, 150:600] if preset == "easy" else view.images, most))
        axis.set_title(slide, fontsize=10)
        axis.axis("off")
    axes = right.subplots(len(shown), len(names))
    for row, (title, other) in zip(axes, shown.items(), strict=True):
        for axis, image in zip(row, other.render(names), strict=True):
            axis.imshow(colours(image, most))
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(title, fontsize=9, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
