"""A report that is one file: figures, tables and text, no server, no network."""

from __future__ import annotations

import base64
import html
import io
import itertools
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sst._files import write_text

from ._page import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from matplotlib.figure import Figure


SCREEN = 360
"""Width of a narrow screen, px."""


@dataclass(frozen=True)
class Section:
    """One part of a report.

    Attributes
    ----------
    title
        Its heading, also in the page's contents.
    text
        Paragraphs, plain text; an empty line begins a new one. Escaped.
    figures
        Caption -> matplotlib figure. Drawings become SVG, figures with pictures in them PNG.
    tables
        Caption -> DataFrame.
    folded
        Tables shown on demand.
    html
        Ready HTML (for example an interactive widget), put after the text as it is.
    code
        Python that repeats the section's work.
    """

    title: str
    text: str = ""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    folded: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    html: str = ""
    code: str = ""


@dataclass(frozen=True)
class Verdict:
    """A headline number.

    Attributes
    ----------
    label, value
        What it is, and the number as shown.
    detail
        One line under it.
    good
        ``True`` or ``False`` colours it; ``None`` leaves it neutral.
    """

    label: str
    value: str
    detail: str = ""
    good: bool | None = None


def write_report(
    path: str | Path,
    *,
    title: str,
    sections: Sequence[Section],
    lead: str = "",
    notice: str = "",
    verdicts: Sequence[Verdict] = (),
    settings: Mapping[str, object] | None = None,
) -> Path:
    """Write one self-contained HTML file.

    Parameters
    ----------
    path
        The file to write; it appears only once complete.
    title
        The page's heading.
    sections
        Its parts, in order.
    lead
        What the reader sees first: a sentence or two.
    notice
        A caution, shown prominently (for example: too few cells to learn from).
    verdicts
        Headline numbers.
    settings
        Name -> value, listed at the end.

    Returns
    -------
    The path written.
    """
    path = Path(path)
    slugs = [f"s{i}" for i in range(len(sections))]
    number = itertools.count(1)
    links = [*zip(slugs, (s.title for s in sections), strict=True), *([("settings", "Settings")] if settings else [])]
    page = PAGE.substitute(
        title=html.escape(title),
        lead=_paragraphs(lead),
        notice=f'<p class="notice" role="note">{html.escape(notice)}</p>' if notice else "",
        verdicts=_verdicts(verdicts),
        contents="".join(f'<a href="#{slug}">{html.escape(name)}</a>' for slug, name in links),
        body="\n".join(_section(slug, s, number) for slug, s in zip(slugs, sections, strict=True)),
        settings=_settings(settings or {}),
        made=datetime.now(tz=UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(path, page)
    return path


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{html.escape(p.strip())}</p>" for p in text.split("\n\n") if p.strip())


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return ""
    tone = {True: "good", False: "bad", None: "plain"}
    cards = "".join(
        f'<div class="card {tone[v.good]}"><span class="label">{html.escape(v.label)}</span>'
        f'<span class="value">{html.escape(v.value)}</span><span class="detail">{html.escape(v.detail)}</span></div>'
        for v in verdicts
    )
    return f'<div class="cards">{cards}</div>'


def _section(slug: str, section: Section, number: Iterator[int]) -> str:
    parts = [f'<section id="{slug}"><h2>{html.escape(section.title)}</h2>', _paragraphs(section.text), section.html]
    parts += [_figure(caption, figure, next(number)) for caption, figure in section.figures.items()]
    parts += [_table(caption, frame) for caption, frame in section.tables.items()]
    for caption, frame in section.folded.items():
        parts.append(f"<details><summary>{html.escape(caption)}</summary>{_table('', frame)}</details>")
    if section.code:
        parts.append(f"<details><summary>Code</summary><pre><code>{html.escape(section.code)}</code></pre></details>")
    return "".join([*parts, "</section>"])


def _figure(caption: str, figure: Figure, number: int) -> str:
    raster = any(axes.images for axes in figure.axes)
    buffer = io.BytesIO()
    kind = "png" if raster else "svg"
    figure.savefig(buffer, format=kind, bbox_inches="tight", dpi=160, facecolor="white")
    mime = "image/png" if raster else "image/svg+xml"
    data = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(caption)
    wide = round(96 * float(figure.get_figwidth()))  # px at which its letters are as large as the page's small ones
    slides = " slides" if wide > SCREEN else ""
    return (
        f'<figure><div class="frame{slides}" tabindex="0" style="--wide:{min(wide, 960)}px"><img '
        f'src="data:{mime};base64,{data}" alt="{text}"></div>'
        f"<figcaption><b>Figure {number}.</b> {text}</figcaption></figure>"
    )


def _table(caption: str, frame: pd.DataFrame) -> str:
    head = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="table">{head}<div class="scroll" tabindex="0">{_grid(frame)}</div></figure>'


def _grid(frame: pd.DataFrame) -> str:
    """Numbers to the right, three figures each; names in words rather than in code."""
    index = 0 if _is_plain(frame) else frame.index.nlevels
    if index:
        named = [name if name is not None else "" for name in frame.index.names]
        frame = frame.set_axis(frame.index.set_names([f"\0{k}" for k in range(index)]), axis=0).reset_index()
        frame.columns = [*named, *frame.columns[index:]]
    right = [k >= index and _is_number(frame.iloc[:, k]) for k in range(frame.shape[1])]
    tone = ['<{} class="n">' if r else "<{}>" for r in right]
    top = "".join(f"{tone[k].format('th')}{_words(str(c))}</th>" for k, c in enumerate(frame.columns))
    rows = []
    for values in frame.itertuples(index=False, name=None):
        cells = []
        for k, value in enumerate(values):
            tag = "th" if k < index else "td"
            cells.append(f"{tone[k].format(tag)}{_cell(value)}</{tag}>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _is_number(column: pd.Series) -> bool:
    return column.dtype.kind in "iuf" or all(
        isinstance(v, (int, float)) and not isinstance(v, bool) for v in column.dropna()
    )


def _cell(value: object) -> str:
    if pd.isna(value) is True:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}".replace("-", "−", 1) if abs(value) < 1e4 else f"{value:,.0f}"
    return _words(str(value), underscore="_")


def _words(name: str, underscore: str = " ") -> str:
    return re.sub(r" ?-&gt; ?", " → ", html.escape(name)).replace("_", underscore)


def _is_plain(frame: pd.DataFrame) -> bool:
    return frame.index.nlevels == 1 and list(frame.index) == list(range(len(frame)))


def _settings(settings: Mapping[str, object]) -> str:
    if not settings:
        return ""
    rows = "".join(
        f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>" for k, v in settings.items()
    )
    return f'<section id="settings"><h2>Settings</h2><div class="scroll"><table class="settings">{rows}</table></div></section>'
