"""What if this cell changed, against what if its niche changed: an editor of both halves of a window against the truth of each.

    python benchmarks/bench_own_niche.py                 # one seed; --seeds 0 1 for more
    python benchmarks/bench_own_niche.py --cells 800 --iterations 20 --rows 30   # to try it

The simulator draws each held-out cell twice more: it alone with the edited genes, among neighbours as they are; and as it is, among edited
neighbours. Nothing of this is known to the training.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import sst
from sst.io.crops import window_corners
from sst.train import EditorConfig

SIZE, SIDE, SPACING = 96, 32, 17.5  # the demo's tissue and crop; its window of 64 px shows little of the neighbours
CHANNELS = [sst.datasets.MARKER_CHANNEL, sst.datasets.NUCLEUS_CHANNEL]
GROUPS = ("normal", "tumor")
PARTS: tuple[Any, ...] = ("own", "niche", None)
APART = 110  # px between cells that are edited in one drawing: farther than half a window and a cell
REGIONS = ("this cell", "its neighbours")


def prepare(n_cells, rows_of_each):
    """Cells, the genes that are edited, and the rows of held-out cells that are measured."""
    tissue = sst.datasets.simulate_tissue(config=sst.datasets.TissueConfig(n_cells=n_cells, spacing=SPACING, seed=0))
    adata = tissue.to_adata(size=SIZE, output_size=SIDE, channels=CHANNELS)
    sst.pp.rescale_intensity(adata, groupby="condition")
    sst.pp.train_test_split(adata, by="fov", seed=0)
    causes = tissue.genes["causes"]
    genes = causes.index[causes.isin(["marker", "nucleus_area"])].tolist()
    group, test = adata.obs["condition"].astype(str).to_numpy(), (adata.obs["split"] == "test").to_numpy()
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.flatnonzero(test & (group == g)))[:rows_of_each] for g in GROUPS]
    return tissue, adata, genes, np.sort(np.concatenate(rows))


def rounds(tissue, names):
    """The cells in rounds, in each of which they lie far apart or in other fields."""
    left = tissue.causes.loc[names]
    while len(left):
        taken: list[str] = []
        places: dict[tuple, list[np.ndarray]] = defaultdict(list)
        for name, row in left.iterrows():
            here = places[row["donor"], row["fov"]]
            xy = np.array([row["x"], row["y"]])
            if all(np.abs(xy - other).max() > APART for other in here):
                here.append(xy)
                taken.append(name)
        yield taken
        left = left.drop(index=taken)


def scaled(raw, adata):
    limits = adata.uns["crops"]["limits"]
    low, high = (np.asarray(limits[k], dtype=float)[:, None, None] for k in ("shared_low", "shared_high"))
    return np.rint((np.clip(raw, low, high) - low) / (high - low) * 255).astype(np.uint8)


def truths(tissue, adata, genes, rows):
    """Images of the cells, had they alone, their neighbours alone, or both, the edited genes of the other group."""
    shape = (len(rows), len(CHANNELS), SIDE, SIDE)
    out = {part: np.zeros(shape, np.uint8) for part in PARTS}
    group = adata.obs["condition"].astype(str).to_numpy()[rows]
    options = {"size": SIZE, "output_size": SIDE, "channels": CHANNELS}
    for source, target in (GROUPS, GROUPS[::-1]):
        mine = np.flatnonzero(group == source)
        names = adata.obs_names[rows[mine]]
        edited = tissue.counterfactual(genes, source, target)
        out[None][mine] = scaled(edited.render(names, **options), adata)
        for taken in rounds(tissue, names):
            where = mine[names.get_indexer(taken)]
            for part, these, others in (("own", edited, tissue), ("niche", tissue, edited)):
                causes = others.causes.copy()
                causes.loc[taken] = these.causes.loc[taken]
                mixed = dataclasses.replace(others, causes=causes)
                out[part][where] = scaled(mixed.render(taken, **options), adata)
    return out


def masks(tissue, adata, rows):
    """This cell, and other cells, in each crop: n x 2 x h x w."""
    out = np.zeros((len(rows), 2, SIDE, SIDE), bool)
    obs, step = adata.obs.iloc[rows], SIZE // SIDE
    corners = window_corners(adata.obsm["spatial_px"][rows], SIZE)
    for (slide, fov), here in obs.groupby(["donor", "fov"], observed=True).indices.items():
        labels = tissue.draw(str(slide), int(fov), channels=CHANNELS[:1], transcripts=False).labels
        for k in here:
            x, y = corners[k]
            window = labels[y : y + SIZE, x : x + SIZE]
            own = window == obs["label"].iloc[k]
            for r, mask in enumerate((own, (window > 0) & ~own)):
                out[k, r] = mask.reshape(SIDE, step, SIDE, step).mean(axis=(1, 3)) > 0.5
    return out


def edits(adata, rows, genes, model):
    """Images of the cells after each edit."""
    out: dict[str | None, np.ndarray] = {}
    for part in PARTS:
        sst.tl.edit(adata, genes=genes, groupby="condition", part=part, model=None, key_added="x")
        if part is None and model.registry.inputs:  # halves of an edited window are the model's to ask for
            sst.tl.edit(
                adata, genes=genes, groupby="condition", model=model, key_added="x", subset=in_rows(adata, rows)
            )
            out[part] = np.asarray(adata.obsm.pop("x")[rows])
            continue
        out[part] = model.generate(adata[rows], layer="x", progress=False)
    return out


def in_rows(adata, rows):
    mask = np.zeros(adata.n_obs, bool)
    mask[rows] = True
    return mask


def change(images, real, where):
    """Mean change of each channel in each region: n x region x channel (NaN where a crop shows none of it)."""
    moved = images.astype(float) - real
    area = where.sum(axis=(2, 3))[..., None]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.einsum("nchw,nrhw->nrc", moved, where) / area


def measure(images, true, real, where, group, fields):
    """Tidy rows: edit, region, channel, direction; predicted and true mean change, their ratio, correlation over cells."""
    table = []
    for part in PARTS:
        got, wanted = change(images[part], real, where), change(true[part], real, where)
        for r, region in enumerate(REGIONS):
            for c, channel in enumerate(CHANNELS):
                for source in GROUPS:
                    a, b = wanted[group == source, r, c], got[group == source, r, c]
                    ok = np.isfinite(a)
                    low, high = over_fields(b[ok], fields[group == source][ok])
                    table.append(
                        {
                            "edit": part or "window", "region": region, "channel": channel, "source": source,
                            "true": a[ok].mean(), "predicted": b[ok].mean(), "low": low, "high": high,
                            "r": np.corrcoef(a[ok], b[ok])[0, 1] if a[ok].std() > 0.05 and b[ok].std() > 0 else np.nan,
                        }
                    )  # fmt: skip
    return pd.DataFrame(table)


def over_fields(values, fields, n=500):
    """Bootstrap of the mean over fields: 2.5 % and 97.5 %."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(fields == f) for f in np.unique(fields)]
    drawn = [np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))]) for _ in range(n)]
    return np.quantile([values[d].mean() for d in drawn], [0.025, 0.975])


def picture(path, rows, where):
    """Each line one kind of image, each column a cell; the cell's outline is drawn."""
    import matplotlib.pyplot as plt

    from sst.pl._drawing import to_rgb

    some = len(where)
    figure, axes = plt.subplots(len(rows), some, figsize=(1.1 * some + 1.2, 1.13 * len(rows)), squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image, mask in zip(line, to_rgb(images), where, strict=True):
            axis.imshow(np.clip(image.astype(int) * 1.3, 0, 255).astype(np.uint8), interpolation="nearest")
            axis.contour(mask[0], levels=[0.5], colors="white", linewidths=0.6)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(left=1.2 / (1.1 * some + 1.2), right=0.995, top=0.99, bottom=0.01, wspace=0.04, hspace=0.04)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cells", type=int, default=9000, help="of each slide")
    parser.add_argument("--rows", type=int, default=300, help="held-out cells of each group that are measured")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--models", nargs="+", default=["halves", "window", "morph", "pooled"])
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON")
    parser.add_argument("--out", type=Path, default=Path("bench_own_niche"))
    options = parser.parse_args()
    sst.settings.progress = False
    options.out.mkdir(parents=True, exist_ok=True)
    tissue, adata, genes, rows = prepare(options.cells, options.rows)
    real, where = np.asarray(adata.obsm["crops"][rows]), masks(tissue, adata, rows)
    group = adata.obs["condition"].astype(str).to_numpy()[rows]
    fields = (adata.obs["donor"].astype(str) + "|" + adata.obs["fov"].astype(str)).to_numpy()[rows]
    true = truths(tissue, adata, genes, rows)
    print(f"{len(rows)} cells of {len(np.unique(fields))} held-out fields; genes {genes}; own counts are "
          f"{np.minimum(adata.layers['segmented'].toarray(), adata.X.toarray()).sum() / adata.X.sum():.2f} of the windows'",
          flush=True)  # fmt: skip
    config = EditorConfig.preset("demo").replace(**{k: json.loads(v) for k, v in (s.split("=") for s in options.set)})
    limits = {"iterations": options.iterations, "max_seconds": options.max_seconds}
    tables, drawn = [], {}
    for seed in options.seeds:
        for name in options.models:
            if name == "morph":
                if seed != options.seeds[0]:
                    continue
                model: Any = sst.tl.fit_rival(adata, "morph", groupby="condition", out=options.out / "morph")
            else:
                # within slides, own and niche vary by themselves; between a normal and a tumour slide they go together
                inputs: Any = None if name == "window" else ("own", "niche")
                batch_key = None if name == "pooled" else "sample"
                folder = options.out / f"{name}{seed}"
                given: Any = {"config": config, "out": folder, "seed": seed, **limits}
                model = sst.tl.train_editor(adata, inputs=inputs, batch_key=batch_key, **given)
            images = edits(adata, rows, genes, model)
            drawn[name, seed] = images
            found = measure(images, true, real, where, group, fields)
            tables.append(found.assign(model=name, seed=seed))
            print(name, seed, flush=True)
            print(found.round(2).to_string(index=False), flush=True)
            pd.concat(tables).to_csv(options.out / "table.csv", index=False)
    some = np.concatenate([np.flatnonzero(group == g)[:: max(1, (group == g).sum() // 5)][:5] for g in GROUPS])
    lines = {"real": real[some]}
    for part, title in (("own", "this cell"), ("niche", "its niche")):
        for (name, seed), images in drawn.items():
            if seed == options.seeds[0] and name != "pooled":
                lines[f"{title} changed:\n{name}"] = images[part][some]
        lines[f"{title} changed:\ntrue"] = true[part][some]
    picture(options.out / "cells.png", lines, where[some])


if __name__ == "__main__":
    main()
