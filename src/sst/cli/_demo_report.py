"""The demo's figures and report."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._demo_input import METHOD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.figure import Figure

    from ._demo_input import DemoInput

NAMES = {"all": "all genes", "chosen": "chosen genes", "null": "null genes"}


def write(data: DemoInput, gan, metrics: dict, *, out: Path, edits: Mapping[str, str], seed: int) -> None:
    """Draw every figure and write ``report.html``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    import sst
    from sst.report import Section

    adata, groupby = data.adata, data.groupby
    test = (adata.obs["split"] == "test").to_numpy()
    held = adata[test].copy()
    sections = [
        Section(
            "The cells",
            text=f"{data.origin}\n\nEvery cell is a pair: its picture and the transcripts inside the same window. "
            "Whole fields of view or tiles are held out; everything below is measured on them alone.",
            figures=_tissue_figures(data),
            tables={"Cells": _cells(data)},
            code=data.code,
        ),
        Section(
            "The generator",
            text="A StyleGAN2 whose convolution kernels and styles are driven by each cell's genes. The curves show its "
            "losses and the distance of generated to held-out real cells.",
            figures={"Training": sst.pl.training(gan)[0].figure},
            code=f'gan = sst.tl.train_gan(adata, groupby="{groupby}", preset="demo", seed={seed})',
        ),
        Section(
            "The edits",
            text="Each cell's expression is carried toward the other group by optimal transport between the groups' second "
            "moments, fitted on training cells: all genes, the chosen "
            f"genes ({', '.join(data.chosen)}), or as many null genes of like expression ({', '.join(data.null)}). "
            "The picture before and after comes from the same latent code and noise, so only the genes differ. After "
            "minutes of training, pictures are softer and less varied than real ones; what genes do to them comes first.",
            figures={
                "Expression before and after the edit of all genes": sst.pl.expression_shift(
                    held, genes=[*data.chosen, *data.null], key="edited", groupby=groupby, return_fig=True
                ),
                "Held-out cells: real, generated, and edited": sst.pl.gallery(
                    held,
                    keys=["crops", "generated", *(edits[k] for k in ("null", "chosen", "all"))],
                    groupby=groupby,
                    seed=seed,
                    return_fig=True,
                ),
            },
            code=_edit_code(data, edits),
        ),
        Section(
            "What changed",
            text="Share of the gap between the groups that each edit closes: 1 is all of it, 0 none. The null edit is the "
            "control: genes as strongly expressed and as different between the slides, which cause nothing.",
            figures={
                "Gap closed": _bars(metrics),
                "Nucleus and marker before and after": sst.pl.morphology(
                    held, keys=["crops", "generated", "edited"], groupby=groupby, return_fig=True
                ),
                "Distance to either group's real cells": sst.pl.distances(adata, return_fig=True),
            },
            tables={"Changes of the mean, held-out cells": _effects(metrics)},
            folded={"All distances": _distances(adata)},
        ),
        Section(
            "Does the picture follow the genes?",
            text="Within a group, where the slide's label says nothing: rank correlation of a driving gene's count with its "
            "feature, in real and in generated cells.",
            figures={"A driving gene and its feature": _scatter(data)},
            tables={"Spearman correlation within groups": _fidelity(metrics)},
        ),
    ]
    sst.report.write_report(
        out / "report.html",
        title="Edited cells",
        lead="If these cells expressed their genes as the other group does, what would they look like?",
        notice=data.notice,
        verdicts=[] if data.notice else _verdicts(metrics),
        sections=sections,
        settings=_settings(data, gan, metrics, seed),
    )
    plt.close("all")


def _verdicts(metrics: dict) -> list:
    from sst.report import Verdict

    def worst(name: str, pick) -> float | None:
        values = [v for d in metrics["gap_closed"][name].values() for v in d.values() if v is not None]
        return pick(values) if values else None

    def card(label: str, value: float | None, detail: str, good) -> Verdict:
        shown = "n/a" if value is None else f"{100 * value:.0f} %"
        return Verdict(label, shown, detail, None if value is None else bool(good(value)))

    fidelity = metrics["fidelity"]
    shares = [
        g / r for f in fidelity["real"] if (r := fidelity["real"][f]) and (g := fidelity["generated"][f]) is not None
    ]
    cards = [card("gap closed, all genes", worst("all", min), "least over features and directions", lambda v: v >= 0.7)]
    if "truth_recovered" in metrics:
        values = [v for d in metrics["truth_recovered"]["chosen"].values() for v in d.values() if v is not None]
        cards.append(
            card("true effect recovered, chosen genes", min(values, default=None), "least", lambda v: v >= 0.7)
        )
    null = worst("null", lambda v: max(v, key=abs))
    cards.append(card("gap closed, null genes", null, "largest in size: should be none", lambda v: abs(v) < 0.1))
    cards.append(
        card("fidelity to driving genes", min(shares, default=None), "generated / real, least", lambda v: v >= 0.8)
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
        "Limits of intensity and counts per window": sst.pl.crops_qc(data.adata, groupby=data.groupby, return_fig=True)
    }


def _bars(metrics: dict) -> Figure:
    import matplotlib.pyplot as plt

    from sst.pl._style import palette, style

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
            panel.set_title(feature.replace("_", " "))
            panel.margins(y=0.12)
        panels[0].set_ylabel("share of the gap closed")
        panels[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _scatter(data: DemoInput) -> Figure:
    import matplotlib.pyplot as plt

    from sst.pl._style import group_colors, style

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
                    ax.scatter(
                        counts[cells] + 1, values[cells], s=5, alpha=0.4, lw=0, color=colours[group], label=group
                    )
                ax.set(xscale="log", xlabel=f"{gene} (counts + 1)", title=title)
            row[0].set_ylabel(feature.replace("_", " "))
        axes[0, 1].legend(frameon=False, markerscale=3, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.tight_layout()
    return figure


def _effects(metrics: dict) -> pd.DataFrame:
    return pd.DataFrame(metrics["effects"])


def _distances(adata) -> pd.DataFrame:
    value = adata.uns["distances"]
    return value if isinstance(value, pd.DataFrame) else value["table"]


def _fidelity(metrics: dict) -> pd.DataFrame:
    table = pd.DataFrame(metrics["fidelity_by_group"])
    wide = table.pivot_table(index=["feature", "gene", "group"], columns="kind", values="rho", sort=False, dropna=False)
    wide.columns.name = None
    return wide.reset_index()[["feature", "gene", "group", "real", "generated"]]


def _edit_code(data: DemoInput, edits: Mapping[str, str]) -> str:
    genes = {"all": None, "chosen": data.chosen, "null": data.null}
    lines = [
        f"sst.tl.edit(adata, genes={genes[k]}, method={METHOD!r}, model=gan, key_added={key!r})"
        for k, key in edits.items()
    ]
    lines += [f"sst.tl.morphology(adata, key={key!r})" for key in ("crops", "generated", *edits.values())]
    return "\n".join([*lines, "sst.tl.distances(adata)"])


def _settings(data: DemoInput, gan, metrics: dict, seed: int) -> dict[str, object]:
    import torch

    import sst

    crops = data.adata.uns["crops"]
    return {
        "seed": seed,
        "training steps": metrics["steps"],
        "model": gan.hash,
        "window": f"{crops['size']} px, as {crops['output_size']} px",
        "channels": ", ".join(map(str, crops["channels"])),
        "genes": data.adata.n_vars,
        "marker": f"mean {data.marker} in the window",
        "device": str(sst.settings.torch_device()),
        "versions": f"sst-editing {sst.__version__}, torch {torch.__version__}, anndata {version('anndata')}, Python {platform.python_version()}",
    }
