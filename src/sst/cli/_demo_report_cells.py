"""The report's first pages: these very cells, edited, beside what they would truly look like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._demo_input import METHOD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from matplotlib.figure import Figure

    from sst.report import Section, Verdict

    from ._demo_input import DemoInput

SIDE = 8  # windows a side of the field that is shown
WORDS = {"null": "null genes", "chosen": "chosen genes", "all": "all genes"}


def cells_section(
    data: DemoInput, held: AnnData, editor: Any, metrics: Mapping[str, Any], *, edits: Mapping[str, str], seed: int
) -> Section:
    """Real held-out cells, the same edited, and their true counterfactuals, row under row; then a field of tissue."""
    import sst
    from sst.report import Section

    known = "truth_all" in held.obsm
    figures = {
        "Held-out cells, each in one column: real; the same cell with its null, its chosen and with all genes edited"
        + ("; under the last two, what the cell would truly look like." if known else "."): _rows(
            data, held, edits, seed
        ),
    }
    field = _field(data, held, edits)
    if field is not None:
        figures[
            "A held-out field: as it is, with all genes of every cell edited, "
            + ("and as it would truly be. " if known else "")
            + "Each window is edited by itself and painted where it lies; cells whose window reaches beyond the field stay as they are."
        ] = field
    figures["The editor's training: left, losses; right, the distance of edited to real held-out cells."] = (
        sst.pl.training(editor)[0].figure
    )
    text = (
        "An editor takes the real picture of a cell, its expression and another one, and turns this very cell: neighbours, "
        "outlines and grain stay where nothing changes them. The edits are learnt from training cells "
        f"({METHOD}: optimal transport between the groups' second moments): all genes, the chosen ones "
        f"({', '.join(data.chosen)}), or as many null genes of like expression ({', '.join(data.null)})."
    )
    tables = {"This cell against its true counterfactual; held-out cells": _table(metrics)} if known else {}
    code = [f'ed = sst.tl.train_editor(adata, groupby="{data.groupby}", preset="demo", seed={seed})']
    genes = {"all": None, "chosen": data.chosen, "null": data.null}
    code += [
        f"sst.tl.edit(adata, genes={genes[k]}, method={METHOD!r}, model=ed, key_added={key!r})"
        for k, key in edits.items()
    ]
    return Section("This cell", text=text, figures=figures, tables=tables, code="\n".join(code))


def cells_verdicts(metrics: Mapping[str, Any]) -> list[Verdict]:
    """What the editor is worth, in two numbers."""
    from sst.report import Verdict

    found = metrics.get("this_cell")
    if not found:
        return []
    worst = min((by["all"] for by in found.values()), key=lambda v: v["psnr_to_truth"])
    gain, rival = (worst["psnr_to_truth"] - worst[k] for k in ("psnr_no_edit", "psnr_rival"))
    shares = [v for by in found.values() for v in by["all"]["recovered"].values() if v is not None]
    far = max(shares, key=lambda v: abs(v - 1), default=float("nan"))
    return [
        Verdict(
            "this cell, all genes: PSNR to its true counterfactual",
            f"{worst['psnr_to_truth']:.1f} dB",
            f"worse direction; no edit {worst['psnr_no_edit']:.1f}, a parametric morph {worst['psnr_rival']:.1f}",
            gain > 6 and rival > 0,
        ),
        Verdict(
            "this cell, all genes: share of the true effect",
            f"{100 * far:.0f} %",
            "farthest from 100 %, both features and directions; hoped for: 85 to 115 %",
            abs(far - 1) <= 0.15,
        ),
    ]


def cut_notice(metrics: Mapping[str, Any]) -> str:
    """A caution if time cut a training short."""
    parts = [
        f"the {'generator' if name == 'gan' else 'editor'} at {cut['steps']:,} of {cut['of']:,} steps"
        for name, cut in metrics.get("cut_by_time", {}).items()
        if cut["steps"] < 7 / 8 * cut["of"]
    ]
    if not parts:
        return ""
    return (
        f"Time ended the training before its plan: {' and '.join(parts)}. With fewer steps effects of genes come out smaller and less "
        "true to the single cell, and the generator's pictures softer; --train-seconds gives both longer."
    )


def _rows(data: DemoInput, held: AnnData, edits: Mapping[str, str], seed: int) -> Figure:
    import sst

    show = held.copy()
    rows = {"null genes edited": edits["null"], "chosen genes edited": edits["chosen"]}
    if "truth_chosen" in held.obsm:
        rows |= {"chosen, true": "truth_chosen"}
    rows |= {"all genes edited": edits["all"]}
    if "truth_all" in held.obsm:
        rows |= {"all, true": "truth_all"}
    for label, slot in rows.items():
        show.obsm[label] = held.obsm[slot]
    return sst.pl.gallery(
        show, keys=["crops", *rows], groupby=data.groupby, n_cells=6, seed=seed, cell_inches=0.9, return_fig=True
    )


def _field(data: DemoInput, held: AnnData, edits: Mapping[str, str]) -> Figure | None:
    """The held-out field with most cells: before, after, and true where that is known."""
    import matplotlib.pyplot as plt

    import sst

    if "fov" not in held.obs or not data.sdata:
        return None
    group = data.groups[0]
    slide = group if group in data.sdata else next(iter(data.sdata))
    own = held[(held.obs[data.groupby] == group).to_numpy()]
    fov = str(own.obs["fov"].astype(str).value_counts().index[0])
    own = own[(own.obs["fov"].astype(str) == fov).to_numpy()].copy()
    places, size = np.asarray(own.obsm["spatial_px"]), int(own.uns["crops"]["size"])
    low = np.maximum(np.median(places, axis=0) - SIDE * size / 2, places.min(axis=0) - size / 2)
    bounds = (*low, *np.minimum(low + SIDE * size, places.max(axis=0) + size / 2))
    panels = {"as it is": "crops", "all genes edited": edits["all"]}
    if "truth_all" in own.obsm:
        panels["as it would truly be"] = "truth_all"
    figure, axes = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.8), layout="constrained")
    for ax, (title, key) in zip(axes, panels.items(), strict=True):
        sst.pl.region(data.sdata[slide], adata=own, fov=fov, bounds=bounds, key=key, boxes=False, title=title, ax=ax)
    return figure


def _table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for direction, by in metrics["this_cell"].items():
        for name in ("all", "chosen", "null"):
            one = by[name]
            row = {"direction": direction, "genes": WORDS[name], "PSNR to the truth": one["psnr_to_truth"]}
            row |= {"no edit": one["psnr_no_edit"], "morph": one["psnr_rival"]}
            for what in ("marker", "nucleus_area"):
                label = what.replace("nucleus_area", "area")
                row |= {f"{label}: share": one["recovered"][what], f"{label}: r": one["r"][what]}
            rows.append(row)
    return pd.DataFrame(rows)
