"""Draw the pictures of the gallery by running the page's own code: ``python docs/_gallery.py``."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("gallery.md")
FIGURES = PAGE.parent / "figures" / "gallery"


def entries(text: str) -> list[tuple[str, str]]:
    """Each block of code with the picture that stands under it ("" under none)."""
    found = re.findall(r"^```python\n(.*?)^```\n+(?:!\[[^]]*\]\(figures/gallery/([\w.]+)\))?", text, flags=re.M | re.S)
    return [(code, picture) for code, picture in found]


def draw(folder: Path) -> None:
    """Run the page from top to bottom and keep what each block drew last."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    import sst

    sst.settings.progress = False
    names: dict[str, Any] = {}
    for code, picture in entries(PAGE.read_text()):
        exec(code, names)
        if picture:
            folder.mkdir(parents=True, exist_ok=True)
            plt.gcf().savefig(folder / picture, dpi=80)
        plt.close("all")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        draw(FIGURES)
