"""The benchmark as a page and as text: leaderboard, gene sets, pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._leaderboard_tables import leaderboard_tables
from ._write_report import Section, write_report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.figure import Figure

    from sst.tl import Benchmark

GUIDE = """Each method edits the same held-out cells of a simulated tissue, in both directions between its groups. A gene set's column holds the share
of the true effect on the feature that the set moves most (1 is right); miss is the mean distance of these from 1, r the correlation over cells of
predicted and true change (0 where a method changes nothing), psnr the likeness of each cell's picture to its true counterfactual in dB, mean over these sets.

The last columns are genes that cause nothing: the mean size of what an edit of them does, as a share of the gap between the groups (0 is right).
"programme" genes go with causal ones, "hidden" genes are driven by what also moves the nuclear area. Whoever closes the gap with all genes but moves the
picture with these has learnt what goes together, not what does what."""


DETAIL = """Shares and correlations are those of the feature that a gene set's true counterfactual moves most, named with its size in standard deviations of
the feature. Empty: the true change is too small (under 0.1 SD) for a share of it, or the genes are too noisy for an edit of what counts read (latent)."""


def write_leaderboard(found: Benchmark, path: str | Path) -> Path:
    """Write a benchmark as one self-contained HTML file.

    Parameters
    ----------
    found
        From :func:`sst.tl.benchmark`.
    path
        The file.

    Returns
    -------
    The file's path.
    """
    first, *others = ((caption, _rounded(table)) for caption, table in leaderboard_tables(found).items())
    first[1].insert(0, "rank", first[1]["miss"].rank(method="min").astype("Int64"))
    sections = [
        Section("Leaderboard", GUIDE, tables={"Sorted as measured; rank is by miss.": first[1]}),
        Section("In detail", DETAIL, tables=dict(others)),
        Section(
            "Cells",
            "The first held-out cells of the first group: as they are, as they truly would be, and as each method edits them.",
            figures={
                f"{name}: what its genes do.": leaderboard_figure(rows)
                for name, rows in found.pictures.items()
                if len(rows)
            },
        ),
        Section(
            "Features",
            "Every gene set, direction and feature, with intervals over fields of view and seeds.",
            folded={"All rows": _rounded(found.rows)},
        ),
        Section(
            "Gene sets",
            "Reliability: the share of a gene's variance that is not counting noise.",
            folded={"Genes": _rounded(found.genes)},
        ),
    ]
    return write_report(
        path,
        title="Benchmark: edits against the truth",
        sections=sections,
        lead=str(found.about["tissue"]),
        settings=found.about,
    )


def leaderboard_text(found: Benchmark, command: str = "") -> str:
    """A benchmark's tables and how it was made, as Markdown.

    Parameters
    ----------
    found
        From :func:`sst.tl.benchmark`.
    command
        What made it.
    """
    parts = ["# Benchmark: edits against the truth", *([f"`{command}`"] if command else [])]
    parts.append("\n".join(f"- {name}: {value}" for name, value in found.about.items()))
    for caption, table in leaderboard_tables(found).items():
        parts += [f"## {caption}", markdown(table)]
    return "\n\n".join(parts) + "\n"


def leaderboard_figure(rows: Mapping[str, np.ndarray]) -> Figure:
    """Pictures of one gene set (:attr:`sst.tl.Benchmark.pictures`): cells across, methods down; the first channel green, the last blue."""
    from matplotlib.figure import Figure

    n = max(len(images) for images in rows.values())
    figure = Figure(figsize=(1.7 + 0.75 * n, 0.75 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), n, squeeze=False)
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, images, strict=False):
            axis.imshow(_colours(image), interpolation="nearest")
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(name.replace("_", " "), rotation=0, ha="right", va="center", fontsize=8)
    return figure


def markdown(table: pd.DataFrame) -> str:
    """A table as text, numbers to as many places as fit."""
    shown = _rounded(table)
    text = pd.DataFrame(
        {
            column: [
                "" if pd.isna(v) else f"{v:.{_places(column)}f}" if isinstance(v, float) else str(v)
                for v in shown[column]
            ]
            for column in shown
        }
    )
    lines = ["| " + " | ".join(map(str, text.columns)) + " |", "|" + "---|" * len(text.columns)]
    lines += ["| " + " | ".join(row) + " |" for row in text.to_numpy()]
    return "\n".join(lines)


def _places(column: str) -> int:
    return 0 if column == "seconds" else 1 if column.startswith("psnr") else 2


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    out = table.copy()
    for column in out.select_dtypes("number"):
        if pd.api.types.is_float_dtype(out[column]):
            out[column] = out[column].round(_places(column)) + 0.0
    return out


def _colours(image: np.ndarray) -> np.ndarray:
    """C x h x w uint8 as h x w x 3 in 0..1."""
    scaled = image.astype(float) / 255
    out = np.zeros((*image.shape[1:], 3))
    if len(scaled) > 1:
        out += scaled[0][..., None] * np.array([0.1, 0.95, 0.35])
    out += scaled[-1][..., None] * np.array([0.25, 0.35, 1.0])
    return np.clip(out, 0, 1)
