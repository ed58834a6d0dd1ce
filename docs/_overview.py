"""Draw the picture that opens README and the pages: ``python docs/_overview.py`` (a training of a minute or two on one core)."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import matplotlib as mpl
import numpy as np

import sst

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

mpl.use("Agg")
FIGURE = Path(__file__).with_name("figures") / "overview.png"
CUT: dict[str, Any] = {"size": 64, "output_size": 32, "channels": ["CD298/B2M", "DAPI"]}
SOURCE, TARGET = "normal", "tumor"
FEATURES = {"nucleus_area": "nuclear area", "CD298-B2M_window_mean": "membrane stain"}
EDITED, PLAIN = "#d55e00", "#9aa3b2"


def study(folder: Path, iterations: int) -> dict[str, Any]:
    """Two simulated slides; held-out cells of the first as they are, with causing and with null genes edited, and in truth."""
    tissue = sst.datasets.simulate_tissue(n_cells=1500, seed=0)
    paths = tissue.write_cosmx(folder / "slides")
    slides = {name: sst.pp.read_cosmx(path) for name, path in zip((SOURCE, TARGET), paths, strict=True)}
    pairs = {name: sst.pp.crop_cells(slide, **CUT) for name, slide in slides.items()}
    adata = ad.concat(pairs, label="condition", index_unique="-", uns_merge="same")
    sst.pp.rescale_intensity(adata, groupby="condition")
    sst.pp.train_test_split(adata, by="fov", seed=0)
    editor = sst.tl.train_editor(
        adata, groupby="condition", preset="demo", iterations=iterations, out=folder / "editor", seed=0, device="cpu"
    )
    table = tissue.genes
    chosen = table.index[table["causes"].isin(["marker", "nucleus_area"])].tolist()
    null = [table.index[table["matches"] == gene][0] for gene in chosen]
    sst.tl.edit(adata, genes=chosen, model=editor, seed=0)
    sst.tl.edit(adata, genes=null, model=editor, key_added="null", seed=0)

    gap = _measured(adata[adata.obs["condition"] == TARGET]) - _measured(adata[adata.obs["condition"] == SOURCE])
    held = adata[((adata.obs["split"] == "test") & (adata.obs["condition"] == SOURCE)).to_numpy()].copy()
    limits = adata.uns["crops"]["limits"]
    low, high = (np.asarray(limits[k], float)[:, None, None] for k in ("shared_low", "shared_high"))
    raw = tissue.counterfactual(chosen, SOURCE, TARGET).render(held.obs["cell_id"], **CUT)
    held.obsm["truth"] = _scaled(raw, low, high)
    changes = {key: (_measured(held, key) - _measured(held)) / gap for key in ("null", "edited", "truth")}
    fov = held.obs["fov"].astype(str).value_counts().index[0]
    picture = slides[SOURCE][f"{fov}_image"].sel(c=CUT["channels"]).to_numpy()
    field = held[(held.obs["fov"].astype(str) == fov).to_numpy()].copy()
    return {"picture": _scaled(picture, low, high), "field": field, "changes": changes, "chosen": chosen, "null": null}


def _scaled(raw: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    return ((raw.clip(low, high) - low) / (high - low) * 255).round().astype("uint8")


def _measured(adata: ad.AnnData, key: str = "crops") -> np.ndarray:
    found = sst.metrics.nucleus_features(adata.obsm[key], nucleus_channel=1, channels=CUT["channels"], n_jobs=1)
    return found[list(FEATURES)].mean().to_numpy()


def draw(found: dict[str, Any]) -> Figure:
    """Slide, pair, edit, cells and measures, from left to right."""
    import matplotlib.pyplot as plt

    field = found["field"]
    one, *others = _examples(field, found["chosen"])
    figure = plt.figure(figsize=(11.4, 3.9), dpi=130)
    widths = [0.008, 0.245, 0.395, 0.575, 0.83, 0.995]
    titles = ["read a slide", "cut a pair", "edit genes", "see this cell under them", "measure"]
    for k, (left, title) in enumerate(zip(widths, titles, strict=False)):
        figure.text(left, 0.94, f"{k + 1}  ", fontsize=14, color=EDITED, weight="bold")
        figure.text(left + 0.018, 0.942, title, fontsize=12.5)

    ax = figure.add_axes((0.008, 0.06, 0.215, 0.82))
    ax.imshow(_colored(found["picture"]))
    x, y = field.obsm["spatial_px"][one] - CUT["size"] / 2
    ax.add_patch(mpl.patches.Rectangle((x, y), CUT["size"], CUT["size"], fill=False, color="white", linewidth=2))
    ax.set_axis_off()

    _cell(figure.add_axes((0.245, 0.47, 0.125, 0.41)), field, one, "crops")
    genes = [*found["chosen"], *found["null"]]
    counts = {name: _counts(field, one, genes, layer) for name, layer in {"own": None, "edited": "edited"}.items()}
    own = figure.add_axes((0.285, 0.15, 0.085, 0.28))
    _bars(own, genes, counts["own"], [PLAIN] * len(genes))
    own.set_xlabel("transcripts in the window", fontsize=9, loc="right")
    edited = figure.add_axes((0.45, 0.15, 0.1, 0.73))
    _bars(edited, genes, counts["edited"], [EDITED] * len(found["chosen"]) + [PLAIN] * len(found["null"]), size=9)
    edited.barh(range(len(genes)), counts["own"], height=0.68, fill=False, edgecolor="0.25", linewidth=0.9)
    edited.set_xlabel(f"as in {TARGET} cells\n(outlined: as counted)", fontsize=10)

    for column, (key, title) in enumerate({"crops": "as measured", "edited": "edited", "truth": "in truth"}.items()):
        for row, cell in enumerate([one, *others]):
            ax = figure.add_axes((0.575 + 0.078 * column, 0.61 - 0.275 * row, 0.075, 0.27))
            _cell(ax, field, cell, key)
            if row == 2:
                ax.set_xlabel(title, fontsize=10)

    ax = figure.add_axes((0.89, 0.15, 0.105, 0.73))
    names = {"null": ("null genes", PLAIN), "edited": ("these genes", EDITED), "truth": ("truth", "0.25")}
    for k, (key, (name, color)) in enumerate(names.items()):
        bars = ax.bar(np.arange(len(FEATURES)) + 0.29 * (k - 1), found["changes"][key], 0.27, color=color, label=name)
        ax.bar_label(bars, [f"{v:.1f}" for v in found["changes"][key] + 0.0], fontsize=8)
    ax.axhline(0, color="0.4", linewidth=0.8)
    ax.set_xticks(range(len(FEATURES)), [name.replace(" ", "\n") for name in FEATURES.values()], fontsize=8.5)
    ax.set_ylabel("change / gap between the slides", fontsize=10)
    ax.tick_params(axis="y", labelsize=8)
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(-0.05, 1.0))
    ax.set_ylim(top=1.75)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def _examples(field: ad.AnnData, genes: list[str], n: int = 3) -> list[int]:
    """Cells away from the field's edge, of low, middling and high expression of the genes, in the middle first."""
    inside = field.obsm["spatial_px"]
    middle = np.abs(inside - inside.mean(axis=0)).max(axis=1)
    near = np.argsort(middle)[: max(3 * n, len(middle) // 2)]
    level = np.log1p(field[near, genes].to_df()).mean(axis=1).to_numpy()
    ranked = near[np.argsort(level)]
    picked = [int(ranked[int(q * (len(ranked) - 1))]) for q in (0.5, 0.2, 0.8)]
    return picked[:n]


def _cell(ax: Axes, field: ad.AnnData, cell: int, key: str) -> None:
    ax.imshow(_colored(np.asarray(field.obsm[key][cell])), interpolation="bicubic")
    ax.set_xticks([])
    ax.set_yticks([])


def _colored(image: np.ndarray) -> np.ndarray:
    """Stains in yellow and blue, brightened: h x w x 3 in [0, 1]."""
    colors = np.array([mpl.colors.to_rgb("#ffc832"), mpl.colors.to_rgb("#2a6bff")])
    return np.clip(1.7 / 255 * np.einsum("chw,cr->hwr", image.astype(float), colors), 0, 1)


def _counts(field: ad.AnnData, cell: int, genes: list[str], layer: str | None) -> np.ndarray:
    return field[cell, genes].to_df(layer).to_numpy()[0]


def _bars(ax: Axes, genes: list[str], counts: np.ndarray, colors: list[str], size: int = 8) -> None:
    ax.barh(range(len(genes)), counts, height=0.68, color=colors)
    ax.set_yticks(range(len(genes)), genes, fontsize=size)
    ax.invert_yaxis()
    ax.tick_params(axis="x", labelsize=size - 1)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--out", type=Path, default=FIGURE)
    given = parser.parse_args()
    sst.settings.progress = False
    with tempfile.TemporaryDirectory() as work:
        draw(study(Path(work), given.iterations)).savefig(given.out)
