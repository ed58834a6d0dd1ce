"""How true the editor's cells are: PSNR to the true counterfactual, effects, null edits, sharpness, and the way back, over seeds.

    python benchmarks/bench_editor.py                        # three seeds, the demo's tissue and preset, held-out fields
    python benchmarks/bench_editor.py --choose --seeds 0     # to choose settings by: fields of the training slides are held out instead
    python benchmarks/bench_editor.py --set loss__response=0 --iterations 600
    python benchmarks/bench_editor.py --pixels 128 --cells 3000 --seeds 0 --iterations 200
    python benchmarks/bench_editor.py --resume               # measure the editors that are in --out already, train those that are not

Everything is trained on training fields' crops and counts alone; the simulator says only afterwards what each cell would have looked like.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

import sst
from sst.train import EditorConfig

SPACING = 17.5  # of the demo's tissue
WINDOWS = {
    32: (64, 0.3),
    64: (64, 0.3),
    128: (128, 0.15),
}  # by the crop's side: side of the window, px, and um a pixel; all of 19.2 um
CHANNELS = [sst.datasets.MARKER_CHANNEL, sst.datasets.NUCLEUS_CHANNEL]
GROUPS = ("normal", "tumor")
FEATURES = ("nucleus_area", "CD298-B2M_window_mean", "nucleus_texture")
COLORS = np.array([[1.0, 0.78, 0.2], [0.12, 0.4, 1.0]])  # of the marker and of DAPI in a figure
CONTROLS = ("null", "unrelated", "programme")  # genes that cause nothing


def draw(tissue, adata, rows):
    """Crops (uint8) of some cells of a tissue, scaled as those of ``adata`` are."""
    crops = adata.uns["crops"]
    low, high = (np.asarray(crops["limits"][k], dtype=float)[:, None, None] for k in ("shared_low", "shared_high"))
    raw = tissue.render(adata.obs_names[rows], size=crops["size"], output_size=crops["output_size"], channels=CHANNELS)
    return np.rint((np.clip(raw, low, high) - low) / (high - low) * 255).astype(np.uint8)


def bodies(tissue, adata, rows):
    """Where each cell lies in its window, n x size x size: the simulator's masks."""
    cells, size = adata.obs.iloc[rows], adata.uns["crops"]["size"]
    corners = np.floor(tissue.causes.loc[cells.index, ["x", "y"]].to_numpy()).astype(int) - size // 2
    out = np.zeros((len(rows), size, size), bool)
    for (slide, fov), where in cells.groupby(["donor", "fov"], observed=True).indices.items():
        labels = tissue.draw(str(slide), int(fov), channels=(), transcripts=False).labels
        for k in where:
            x, y = corners[k]
            out[k] = labels[y : y + size, x : x + size] == cells["label"].iloc[k]
    return out


def outside(before, after, side):
    """Pixels of the crops that are no part of the cell, neither before nor after an edit, nor beside one that is: n x side x side."""
    each = before.shape[1] // side
    touched = (before | after).reshape(-1, side, each, side, each).any(axis=(2, 4))
    return ~ndimage.binary_dilation(touched, np.ones((1, 3, 3)))


def prepare(n_cells, choose, side=32):
    """Cells, gene sets, and for the held-out cells the truth of each set and the pixels that are no part of the cell."""
    size, pixel_size = WINDOWS[side]
    config = sst.datasets.TissueConfig(n_cells=n_cells, spacing=SPACING, pixel_size=pixel_size, seed=0)
    tissue = sst.datasets.simulate_tissue(config=config)
    adata = tissue.to_adata(size=size, output_size=side, channels=CHANNELS)
    sst.pp.rescale_intensity(adata, groupby="condition")
    sst.pp.train_test_split(adata, by="fov", seed=0)
    if choose:  # two training fields a slide take the place of the held-out ones
        adata = adata[adata.obs["split"] == "train"].copy()
        fields = adata.obs.groupby("condition", observed=True)["fov"].unique()
        held = {(g, f) for g, found in fields.items() for f in sorted(found, key=str)[:2]}
        here = [pair in held for pair in zip(adata.obs["condition"], adata.obs["fov"], strict=True)]
        adata.obs["split"] = pd.Categorical(np.where(here, "test", "train"))
    genes = tissue.genes
    cause = {f: genes.index[genes["causes"] == f].tolist() for f in ("marker", "nucleus_area", "texture")}
    chosen = cause["marker"] + cause["nucleus_area"]
    null = [genes.index[genes["matches"] == g][0] for g in chosen]
    unrelated, programme = (
        [g for g in tissue.gene_sets()[control] if g not in null] for control in ("unrelated", "programme")
    )
    sets = {"all": None, "chosen": chosen, "null": null} | cause | {"unrelated": unrelated, "programme": programme}
    group = adata.obs["condition"].astype(str).to_numpy()
    test = np.flatnonzero((adata.obs["split"] == "test").to_numpy())
    rng = np.random.default_rng(0)
    rows = np.sort(np.concatenate([rng.permutation(test[group[test] == g])[:600] for g in GROUPS]))
    truths, apart, own = {}, {}, bodies(tissue, adata, rows)
    for name, members in sets.items():
        truths[name] = np.zeros((len(rows), 2, side, side), np.uint8)
        later = np.zeros_like(own)
        for source, target in (GROUPS, GROUPS[::-1]):
            mine = group[rows] == source
            other = tissue.counterfactual(members, source, target)
            truths[name][mine] = draw(other, adata, rows[mine])
            later[mine] = bodies(other, adata, rows[mine])
        apart[name] = outside(own, later, side)
    return adata, sets, rows, truths, apart


def edited(adata, rows, sets, model):
    """Images of the cells after each edit, and (``"back"``) of those with all genes edited, edited back."""
    cells = adata[rows].copy()
    out = {}
    for name, genes in sets.items():
        sst.tl.edit(adata, genes=genes, groupby="condition", model=None, method="ot", key_added=f"x_{name}")
        cells.layers[name] = adata.layers[f"x_{name}"][rows]
        out[name] = model.generate(cells, layer=name, progress=False)
    cells.obsm["crops"] = out["all"]
    out["back"] = model.generate(cells, layer=None, source_layer="all", progress=False)
    return out


def features(images):
    found = sst.metrics.nucleus_features(images, nucleus_channel=1, channels=CHANNELS, n_jobs=1)
    return found[list(FEATURES)].to_numpy(float)


def fine_power(images):
    """Mean power above half the Nyquist frequency, a channel."""
    x = images.astype(float)
    spectrum = np.abs(np.fft.fft2(x - x.mean(axis=(2, 3), keepdims=True))) ** 2
    f = np.fft.fftfreq(x.shape[-1])
    return spectrum[:, :, np.hypot(f[:, None], f) > 0.25].sum(axis=2).mean(axis=0)


def db(a, b):
    error = ((a.astype(float) - b.astype(float)) ** 2).mean(axis=(1, 2, 3)).clip(1e-3)
    return 10 * np.log10(255**2 / error)


def db_outside(a, b, apart):
    """PSNR of the pixels ``apart``, (cells, channels); cells that fill their window have none."""
    some = apart.any(axis=(1, 2))
    square, apart = (a[some].astype(float) - b[some].astype(float)) ** 2, apart[some, None]
    return 10 * np.log10(255**2 / ((square * apart).sum(axis=(2, 3)) / apart.sum(axis=(2, 3))).clip(1e-3))


def interval(values, fields, statistic=np.median, n=500):
    """Bootstrap over fields: 2.5 % and 97.5 %."""
    rng = np.random.default_rng(0)
    names = np.unique(fields)
    members = [np.flatnonzero(fields == f) for f in names]
    found = [
        statistic(values[np.concatenate([members[k] for k in rng.integers(len(names), size=len(names))])])
        for _ in range(n)
    ]
    return np.quantile(found, [0.025, 0.975])


def measure(images, real, truths, apart, group, fields, cache):
    """All figures of one method, by name.

    An effect is told as a share of the true one where there is one, else of the groups' gap; for texture, of what its gene does by itself: the groups
    hardly differ in it, since larger nuclei look smoother.
    """
    found = {}
    before = cache.setdefault("real", features(real))
    for name in truths:
        cache.setdefault(name, features(truths[name]))
    for name in truths:
        psnr = db(images[name], truths[name])
        low, high = interval(psnr, fields)
        found[f"{name}: PSNR, dB"] = float(np.median(psnr))
        found[f"{name}: PSNR low"], found[f"{name}: PSNR high"] = float(low), float(high)
        true, after = cache[name], features(images[name])
        for j, feature in enumerate(("area", "marker", "texture")):
            for k, source in enumerate(GROUPS):
                mine = group == source
                here = mine & np.isfinite(before[:, j] + true[:, j] + after[:, j])
                wanted, got = (true - before)[here, j], (after - before)[here, j]
                unit, of = np.nanmean(before[group == GROUPS[1 - k], j]) - np.nanmean(before[mine, j]), "gap"
                if feature == "texture":
                    unit, of = np.nanmean((cache["texture"] - before)[mine, j]), "its gene's effect"
                if name not in CONTROLS and abs(wanted.mean() / unit) > 0.05:
                    found[f"{name}: {feature} {source}, share"] = float(got.mean() / wanted.mean())
                    found[f"{name}: {feature} {source}, r"] = (
                        float(np.corrcoef(wanted, got)[0, 1]) if got.std() else np.nan
                    )
                else:
                    found[f"{name}: {feature} {source}, of {of}"] = float(got.mean() / unit)
        for c, channel in enumerate(("marker", "DAPI")):
            left = db_outside(images[name][:, c : c + 1], real[:, c : c + 1], apart[name])
            found[f"{name}: outside the cell, {channel}, dB to the real one"] = float(np.median(left))
    for k, source in enumerate(GROUPS):
        mine, theirs = group == source, group == GROUPS[1 - k]
        for c, channel in enumerate(("marker", "DAPI")):
            ratio = fine_power(images["all"][mine]) / fine_power(real[theirs])
            found[f"fine power, {channel}, {source}"] = float(ratio[c])
    found["edit and back, dB"] = float(np.median(db(images["back"], real)))
    found["DAPI when marker genes are edited, dB"] = float(np.median(db(images["marker"][:, 1:], real[:, 1:])))
    found["marker when size genes are edited, dB"] = float(np.median(db(images["nucleus_area"][:, :1], real[:, :1])))
    return found


def lines_of(frame):
    """Lines of the table for people: its figures, of normal / tumour cells where there are two, the seeds after one another."""
    words = {
        "all": "all genes",
        "chosen": "chosen genes",
        "null": "null genes",
        "unrelated": "unrelated genes",
        "programme": "programme's genes",
        "marker": "marker genes alone",
        "nucleus_area": "size gene alone",
        "texture": "chromatin gene alone",
    }
    seeds = [name for name in frame if name.startswith("seed")]

    def line(title, show):
        shown = [*map(show, ("no edit", "truth", "morph")), "; ".join(map(show, seeds))]
        return f"| {title} | {' | '.join(shown)} |"

    def pair(keys, sign=" / ", digits=2):
        return lambda column: sign.join(
            f"{round(v, digits) + 0.0:.{digits}f}" for v in frame.loc[keys, column].dropna()
        )

    yield "| | no edit | truth | morph | editor |\n|---|---|---|---|---|"
    for name, title in words.items():
        keys = [f"{name}: PSNR{what}" for what in (", dB", " low", " high")]
        yield line(
            f"PSNR, {title}", lambda column, keys=keys: "{:.1f} ({:.1f} to {:.1f})".format(*frame.loc[keys, column])
        )
    for name, title in words.items():
        for feature in ("marker", "area", "texture"):
            for what in ("share", "r", "of gap", "of its gene's effect"):
                keys = [f"{name}: {feature} {source}, {what}" for source in GROUPS]
                if set(keys) <= set(frame.index):
                    yield line(f"{title}: {feature}, {what}", pair(keys))
    for name, title in words.items():
        keys = [f"{name}: outside the cell, {channel}, dB to the real one" for channel in ("marker", "DAPI")]
        yield line(f"{title}: outside the cell, marker; DAPI", pair(keys, "; ", 1))
    for channel in ("marker", "DAPI"):
        yield line(f"fine power over real cells', {channel}", pair([f"fine power, {channel}, {g}" for g in GROUPS]))
    for key in ("edit and back, dB", "DAPI when marker genes are edited, dB", "marker when size genes are edited, dB"):
        yield line(key, pair([key], digits=1))


def montage(path, rows):
    """Rows of cells, marker and DAPI side by side, as PNG."""
    from matplotlib import image

    lines = [np.concatenate([np.concatenate(list(cell), axis=1) for cell in images], axis=1) for images in rows]
    each = max(96 // rows[0].shape[-1], 1)
    picture = np.concatenate(lines).repeat(each, axis=0).repeat(each, axis=1)
    image.imsave(path, picture, cmap="gray", vmin=0, vmax=200)


def figure(path, rows, group, side):
    """Cells in columns, rows by their names; stains in colours, each as bright as in the real cells at most, PNG."""
    import matplotlib.pyplot as plt

    rng, n = np.random.default_rng(0), 5 if side <= 64 else 3
    columns = [np.sort(rng.permutation(np.flatnonzero(group == g))[:n]) for g in GROUPS]
    top = [np.quantile(next(iter(rows.values()))[:, c], 0.998) for c in range(2)]
    canvas = plt.figure(figsize=(13.4, 13.4 * len(rows) / (2.1 + 2 * n) + 0.4), dpi=100, layout="constrained")
    halves = np.asarray(canvas.subfigures(1, 2, width_ratios=[1.9 + n, n])).tolist()
    titles = (
        "normal cells, expressing all genes as tumour cells do",
        "tumour cells, expressing all genes as normal cells do",
    )
    for k, (half, title) in enumerate(zip(halves, titles, strict=True)):
        half.suptitle(title, fontsize=12, x=(1.9 + n / 2) / (1.9 + n) if k == 0 else 0.5)
        axes = half.subplots(len(rows), n + 1 - k, squeeze=False, width_ratios=[1.9] * (1 - k) + [1] * n)
        for line, (name, images) in zip(axes, rows.items(), strict=True):
            if k == 0:
                line[0].text(1, 0.5, name, ha="right", va="center", fontsize=12, transform=line[0].transAxes)
            for ax, image in zip(line[1 - k :], images[columns[k]], strict=True):
                shares = [np.clip(plane / level, 0, 1) for plane, level in zip(image, top, strict=True)]
                shown = np.clip(np.tensordot(np.stack(shares, axis=2), COLORS, 1), 0, 1)
                ax.imshow(shown, interpolation="bicubic" if side < 64 else "nearest")
            for ax in line:
                ax.axis("off")
    canvas.savefig(path)
    plt.close(canvas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", type=int, default=9000, help="cells a slide")
    parser.add_argument("--pixels", type=int, default=32, choices=WINDOWS, help="side of the crops; all show as much")
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--max-seconds", type=float)
    parser.add_argument("--resume", action="store_true", help="go on from what --out holds")
    parser.add_argument("--choose", action="store_true", help="measure on fields of the training split")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings, such as loss__response=0")
    parser.add_argument("--out", type=Path, default=Path("bench_editor"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    widest = {"discriminator__channel_base": 16 * options.pixels}  # 16 channels at the crop's own side
    config = EditorConfig.preset("demo").replace(
        **widest | {k: json.loads(v) for k, v in (s.split("=") for s in options.set)}
    )
    adata, sets, rows, truths, apart = prepare(options.cells, options.choose, options.pixels)
    real = np.asarray(adata.obsm["crops"])[rows]
    group = adata.obs["condition"].astype(str).to_numpy()[rows]
    fields = (adata.obs["condition"].astype(str) + "/" + adata.obs["fov"].astype(str)).to_numpy()[rows]
    cache: dict = {}
    same = dict.fromkeys((*sets, "back"), real)
    table = {"no edit": measure(same, real, truths, apart, group, fields, cache)}
    table["truth"] = measure(truths | {"back": real}, real, truths, apart, group, fields, cache)
    morph = sst.tl.fit_rival(adata, "morph", groupby="condition")
    drawn = edited(adata, rows, sets, morph)
    table["morph"] = measure(drawn, real, truths, apart, group, fields, cache)
    some = np.concatenate([np.flatnonzero(group == g)[:6] for g in GROUPS])
    for seed in options.seeds:
        wall, cpu = time.perf_counter(), time.process_time()
        model = sst.tl.train_editor(
            adata, groupby="condition", config=config, seed=seed, out=options.out / f"seed{seed}", resume=options.resume,
            iterations=options.iterations, max_seconds=options.max_seconds,
        )  # fmt: skip
        spent = {"wall, s": time.perf_counter() - wall, "CPU, s": time.process_time() - cpu}
        images = edited(adata, rows, sets, model)
        table[f"seed {seed}"] = measure(images, real, truths, apart, group, fields, cache) | spent
        shown = [
            real,
            images["all"],
            truths["all"],
            drawn["all"],
            images["chosen"],
            truths["chosen"],
            images["texture"],
        ]
        montage(options.out / f"seed{seed}.png", [x[some] for x in shown])
        lines = {
            "this cell, as measured": real,
            "the same cell, edited": images["all"],
            "what it would truly\nlook like": truths["all"],
        }
        figure(options.out / f"seed{seed}_cells.png", lines, group, options.pixels)
        frame = pd.DataFrame(table)
        frame.to_csv(options.out / "table.csv")
        (options.out / "table.md").write_text("\n".join(lines_of(frame)) + "\n")
        print(frame.round(3).to_string(), flush=True)


if __name__ == "__main__":
    main()
