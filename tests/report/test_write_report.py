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


def test_a_failed_report_leaves_nothing(tmp_path: Path) -> None:
    bad = sst.report.Section("x", figures={"not a figure": object()})  # type: ignore[dict-item]
    with pytest.raises(AttributeError):
        sst.report.write_report(tmp_path / "report.html", title="x", sections=[bad])
    assert list(tmp_path.iterdir()) == []
