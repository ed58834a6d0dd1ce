"""The demo's figures and report."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._demo_report_cells import cells_section, cells_verdicts, cut_notice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.figure import Figure

    from sst.models import GAN, Editor

    from ._demo_input import DemoInput

NAMES = {"all": "all genes", "chosen": "chosen genes", "null": "null genes"}


def write(
    data: DemoInput,
    held: AnnData,
    gan: GAN,
    editor: Editor,
    metrics: dict,
    *,
    out: Path,
    edits: Mapping[str, str],
    generated: Mapping[str, str],
    seed: int,
) -> None:
    """Draw every figure and write ``report.html``: first these very cells, then what the generator draws."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    import sst
    from sst.report import Section

    adata, groupby = data.adata, data.groupby
    sections = [
        cells_section(data, held, editor, metrics, edits=edits, seed=seed),
        Section(
            "The cells",
            text=f"{data.origin}\n\nEvery cell is a pair: its picture and the transcripts inside the same window. "
            "Whole fields of view or tiles are held out; everything below is measured on them alone.",
            figures=_tissue_figures(data),
            tables={"Cells to learn from (train) and held out (test)": _cells(data)},
            code=data.code,
        ),
        Section(
            "The generator",
            text="Where no cell is given, a generator draws one: a StyleGAN2 whose convolution kernels and styles are driven by genes. The curves show its "
            "losses and the distance of generated to held-out real cells.",
            figures={
                "Left, the losses of the two networks (D tells pictures from real ones, G makes them): they balance each other "
                "rather than fall. Right, the distance of generated to real held-out cells, which should fall; circled: the "
                "smallest.": sst.pl.training(gan)[0].figure
            },
            code=f'gan = sst.tl.train_gan(adata, groupby="{groupby}", preset="demo", seed={seed})',
        ),
        Section(
            "What the generator draws",
            text="The same edits of expression as above. The picture before and after comes from the same latent code and noise, so only the genes differ. After "
            "minutes of training, pictures are softer and less varied than real ones; what genes do to them comes first.",
            figures={
                "Expression of each gene before and after the edit of all genes (lighter: edited), beside the real cells of the "
                "group it goes toward, which it should resemble. Stars: a two-sided test, before against after and after "
                "against the goal.": sst.pl.expression_shift(
                    held, genes=[*data.chosen, *data.null], key="edited", groupby=groupby, return_fig=True
                ),
                "Held-out cells, each in one column: real; generated from its own genes; and from its edited genes (null, chosen, "
                "all). The generator draws a cell with these genes, not this very cell.": sst.pl.gallery(
                    held,
                    keys=["crops", "generated", *(generated[k] for k in ("null", "chosen", "all"))],
                    groupby=groupby,
                    seed=seed,
                    return_fig=True,
                ),
            },
            code=_edit_code(edits, generated),
        ),
        Section(
            "What changed",
            text="Share of the gap between the groups that each edit closes in the generator's pictures: 1 is all of it, 0 none. The null edit is the "
            "control: genes as strongly expressed and as different between the slides, which cause nothing.",
            figures={
                "Share of the gap between the groups' real cells that each edit closes. Dotted: all of it.": _bars(
                    metrics
                ),
                "Real cells, the same edited (all genes), and the generator's of both. Dashed: the median of the real cells that the edit goes toward. Stars: "
                "two-sided paired test of before against after.": sst.pl.morphology(
                    held, keys=["crops", "edited", "generated", generated["all"]], groupby=groupby, return_fig=True
                ),
                "Distance to the real cells of either group (an edit should come nearer to the other colour's). Dotted: distance "
                "between two samples of real cells, the least there can be.": sst.pl.distances(adata, return_fig=True),
            },
            tables={"Changes of the mean, held-out cells": _effects(metrics)},
            folded={"All distances": _distances(adata)},
        ),
        Section(
            "Does the picture follow the genes?",
            text="Within a group, where the slide's label says nothing: rank correlation of a driving gene's count with its "
            "feature, in real and in generated cells.",
            figures={
                "Each dot is a held-out cell: the count of a gene against the feature that it drives.": _scatter(data)
            },
            tables={"Spearman correlation within groups": _fidelity(metrics)},
        ),
        Section(
            "Could it be the slide?",
            text="How well the groups are told apart by what need not be biology: where this is far above guessing, a model can "
            "learn the slide, and an edit can show it. Compare with the null genes above."
            + (" In this simulated tissue all of it comes from the cells and their genes." if data.truth else ""),
            figures={
                "In reading order: cells told apart by background, extreme pixels and depth, in fields not seen; transcripts in a "
                "window; intensities as recorded; and the genes that differ most, as counted and at equal depth.": (
                    sst.pl.confound_report(adata, return_fig=True)
                )
            },
            code=f'sst.tl.confound_report(adata, "{groupby}")\nsst.pl.confound_report(adata)',
        ),
    ]
    sst.report.write_report(
        out / "report.html",
        title="Edited cells",
        lead="If these cells expressed their genes as the other group does, what would they look like?",
        notice=" ".join(filter(None, (data.notice, cut_notice(metrics)))),
        verdicts=[] if data.notice else [*cells_verdicts(metrics), *_verdicts(metrics)],
        sections=sections,
        settings=_settings(data, gan, editor, metrics, seed),
    )
    plt.close("all")


def _verdicts(metrics: dict) -> list:
    from sst.report import Verdict

    def worst(name: str, pick: Callable[[list[float]], float]) -> float | None:
        values = [v for d in metrics["gap_closed"][name].values() for v in d.values() if v is not None]
        return pick(values) if values else None

    def card(label: str, value: float | None, detail: str, good: Callable[[float], bool]) -> Verdict:
        shown = "n/a" if value is None else f"{100 * value:.0f} %"
        return Verdict(label, shown, detail, None if value is None else bool(good(value)))

    fidelity = metrics["fidelity"]
    shares = [
        g / r for f in fidelity["real"] if (r := fidelity["real"][f]) and (g := fidelity["generated"][f]) is not None
    ]
    cards = [
        card(
            "gap closed, all genes",
            worst("all", min),
            "least of all features and directions; hoped for: 70 % or more",
            lambda v: v >= 0.7,
        )
    ]
    if "truth_recovered" in metrics:
        values = [v for d in metrics["truth_recovered"]["chosen"].values() for v in d.values() if v is not None]
        cards.append(
            card(
                "true effect recovered, chosen genes",
                min(values, default=None),
                "least; hoped for: 70 % or more",
                lambda v: v >= 0.7,
            )
        )
    null = worst("null", lambda v: max(v, key=abs))
    cards.append(
        card("gap closed, null genes", null, "largest in size; hoped for: none, less than 10 %", lambda v: abs(v) < 0.1)
    )
    cards.append(
        card(
            "fidelity to driving genes",
            min(shares, default=None),
            "correlation in generated over that in real cells, least; hoped for: 80 % or more",
            lambda v: v >= 0.8,
        )
    )
    return cards


def _cells(data: DemoInput) -> pd.DataFrame:
    obs = data.adata.obs
    table = pd.crosstab(obs[data.groupby].astype(str), obs["split"].astype(str))
    table.index.name, table.columns.name = None, None
    return table


def _tissue_figures(data: DemoInput) -> dict[str, Figure]:
    import sst

    if not hasattr(sst.pl, "crops_qc"):
        return {}
    return {
        "Lowest (filled) and highest (outlined) intensity of each crop, with the limits it is clipped to; and transcripts "
        "counted in the window against those of the segmented cell.": sst.pl.crops_qc(
            data.adata, groupby=data.groupby, return_fig=True
        )
    }


def _bars(metrics: dict) -> Figure:
    import matplotlib.pyplot as plt

    from sst.pl._drawing import palette, style

    with style():
        figure, panels = plt.subplots(1, 2, figsize=(8.2, 3.2), sharey=True)
        colours = dict(zip(metrics["gap_closed"], palette(3), strict=True))
        for panel, feature in zip(panels, ("marker", "nucleus_area"), strict=True):
            for i, (name, by_direction) in enumerate(metrics["gap_closed"].items()):
                values = [np.nan if (v := by_direction[d][feature]) is None else v for d in by_direction]
                at = np.arange(len(values)) + (i - 1) * 0.26
                bars = panel.bar(at, values, width=0.24, color=colours[name], label=NAMES[name])
                panel.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
            panel.axhline(0, color="black", linewidth=0.8)
            panel.axhline(1, color="0.6", linewidth=0.8, linestyle=":")
            directions = [d.replace("->", " → ") for d in by_direction]
            panel.set_xticks(np.arange(len(directions)), directions)
            panel.set_title(feature.replace("nucleus_area", "nuclear area"))
            panel.margins(y=0.12)
        panels[0].set_ylabel("share of the gap closed")
        panels[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _scatter(data: DemoInput) -> Figure:
    import matplotlib.pyplot as plt

    from sst.pl._drawing import group_colors, style

    from ._demo_measure import FEATURES, features

    adata = data.adata
    test = (adata.obs["split"] == "test").to_numpy()
    colours = group_colors(adata, data.groupby)
    with style():
        figure, axes = plt.subplots(len(FEATURES), 2, figsize=(7.2, 5.6), sharex="row", sharey="row", squeeze=False)
        for row, feature in zip(axes, FEATURES, strict=True):
            gene = data.drivers[feature][0]
            counts = np.asarray(adata[:, gene].X.todense()).ravel()
            for ax, (title, key) in zip(row, (("real", "crops"), ("generated", "generated")), strict=True):
                values = features(data, key)[feature].to_numpy()
                for group in data.groups:
                    cells = test & (adata.obs[data.groupby] == group).to_numpy()
                    ax.scatter(counts[cells], values[cells], s=5, alpha=0.4, lw=0, color=colours[group], label=group)
                ax.set(xlabel=f"{gene} (transcripts in the window)", title=f"{title} cells")
            row[0].set_ylabel(_feature_name(feature, data))
        axes[0, 1].legend(frameon=False, markerscale=3, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.tight_layout()
    return figure


def _feature_name(feature: str, data: DemoInput) -> str:
    return f"{data.marker}, mean in window" if feature == "marker" else "nuclear area"


def _effects(metrics: dict) -> pd.DataFrame:
    return _named(pd.DataFrame(metrics["effects"]))


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Features and edits in words."""
    words = {"nucleus_area": "nuclear area"} | NAMES
    columns = {c: table[c].map(lambda v: words.get(v, v)) for c in ("feature", "edit") if c in table}
    return table.assign(**columns)


def _distances(adata: AnnData) -> pd.DataFrame:
    value = adata.uns["distances"]
    return value if isinstance(value, pd.DataFrame) else value["table"]


def _fidelity(metrics: dict) -> pd.DataFrame:
    table = pd.DataFrame(metrics["fidelity_by_group"])
    rows = ["feature", "gene", "group"]
    wide = table.pivot(index=rows, columns="kind", values="rho").reindex(pd.MultiIndex.from_frame(table[rows]).unique())
    wide.columns.name = None
    return _named(wide.reset_index()[[*rows, "real", "generated"]])


def _edit_code(edits: Mapping[str, str], generated: Mapping[str, str]) -> str:
    lines = ["sst.tl.generate(adata, model=gan)"]
    lines += [f"sst.tl.generate(adata, model=gan, layer={edits[k]!r}, key_added={generated[k]!r})" for k in edits]
    lines += [f"sst.tl.morphology(adata, key={key!r})" for key in ("crops", "generated", *generated.values())]
    return "\n".join([*lines, "sst.tl.distances(adata)"])


def _settings(data: DemoInput, gan: GAN, editor: Editor, metrics: dict, seed: int) -> dict[str, object]:
    import torch

    import sst

    crops = data.adata.uns["crops"]
    return {
        "seed": seed,
        "steps of the editor": metrics["steps_editor"],
        "steps of the generator": metrics["steps"],
        "editor": editor.hash,
        "generator": gan.hash,
        "window": f"{crops['size']} px, as {crops['output_size']} px",
        "channels": ", ".join(map(str, crops["channels"])),
        "genes": data.adata.n_vars,
        "marker": f"mean {data.marker} in the window",
        "device": str(sst.settings.torch_device()),
        "versions": f"sst-editing {sst.__version__}, torch {torch.__version__}, anndata {version('anndata')}, Python {platform.python_version()}",
    }
