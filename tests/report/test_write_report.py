from __future__ import annotations

import re
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import sst

if TYPE_CHECKING:
    from pathlib import Path


def test_report_is_one_complete_file(tmp_path: Path) -> None:
    drawing, ax = plt.subplots()
    ax.plot([0, 1])
    picture, ax = plt.subplots()
    ax.imshow(np.eye(4))
    section = sst.report.Section(
        "Shift <of genes>",
        text="First.\n\nSecond & last.",
        figures={"a drawing": drawing, "a picture": picture},
        tables={"a table": pd.DataFrame({"gene": ["B2M"], "effect": [0.123456]})},
        code="sst.tl.edit(adata, genes=['B2M'])",
    )
    out = sst.report.write_report(
        tmp_path / "deep" / "report.html",
        title="Edit & see",
        sections=[section],
        notice="Too few cells.",
        verdicts=[sst.report.Verdict("gap closed", "91 %", good=True)],
        settings={"seed": 0},
    )
    plt.close("all")
    page = out.read_text()
    assert list(out.parent.iterdir()) == [out]
    assert "Shift &lt;of genes&gt;" in page
    assert "<p>First.</p><p>Second &amp; last.</p>" in page
    assert page.count("data:image/png;base64,") == 1
    assert page.count("data:image/svg+xml;base64,") == 1
    assert "B2M" in page
    assert "0.123" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing is fetched from elsewhere"


def test_tables_are_made_to_be_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "direction": ["normal->tumor", "<b>"],
            "true_change": [-12.3456, np.nan],
            "n": [3, 4],
            "mixed": pd.Series([None, 0.5], dtype=object),
            "large": [123456.0, 1.0],
        }
    )
    counted = pd.DataFrame({"test": [1, 2]}, index=pd.Index(["normal", "tumor"], name="condition"))
    both = pd.DataFrame({"v": [1.0]}, index=pd.MultiIndex.from_tuples([("a", "b")], names=["x", None]))
    section = sst.report.Section("t", tables={"one": frame, "two": counted, "three": both})
    page = sst.report.write_report(tmp_path / "r.html", title="t", sections=[section], settings={"a": 1}).read_text()
    assert '<th>direction</th><th class="n">true change</th>' in page
    assert (
        '<td>normal → tumor</td><td class="n">−12.3</td><td class="n">3</td><td class="n"></td><td class="n">123,456</td>'
        in page
    )
    assert '<td>&lt;b&gt;</td><td class="n"></td><td class="n">4</td><td class="n">0.5</td>' in page
    assert '<th>condition</th><th class="n">test</th>' in page
    assert '<tr><th>tumor</th><td class="n">2</td></tr>' in page
    assert '<th>x</th><th></th><th class="n">v</th>' in page
    assert '<a href="#settings">Settings</a>' in page


def test_figures_are_counted_through_the_sections(tmp_path: Path) -> None:
    sections = [sst.report.Section(t, figures={f"of {t}": plt.subplots()[0]}) for t in "ab"]
    page = sst.report.write_report(tmp_path / "r.html", title="t", sections=sections).read_text()
    plt.close("all")
    assert "<b>Figure 1.</b> of a" in page
    assert "<b>Figure 2.</b> of b" in page


def test_a_failed_report_leaves_nothing(tmp_path: Path) -> None:
    bad = sst.report.Section("x", figures={"not a figure": object()})  # type: ignore[dict-item]
    with pytest.raises(AttributeError):
        sst.report.write_report(tmp_path / "report.html", title="x", sections=[bad])
    assert list(tmp_path.iterdir()) == []
