"""Pages of the tutorials: copies of the notebooks, and a picture of each for the list of them."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KEPT = ("index.md", ".gitignore")
# Which figure of a notebook stands for it; else its first gallery of more than crops.
SHOWN = {"workflow": -1, "trust": -2, "donors": -2}


def copy(source: Path, folder: Path) -> None:
    """Bring the folder's pages up to date, and take away those of tutorials that are no more."""
    pages = {path.name: path for path in sorted([*source.glob("*.ipynb"), *source.glob("*.md")])}
    for old in [*folder.glob("*.ipynb"), *folder.glob("*.md")]:
        if old.name not in pages and old.name not in KEPT:
            old.unlink()
    for name, page in pages.items():
        _write(folder / name, page.read_bytes().replace(b"](../docs/", b"](../"))
        if page.suffix == ".ipynb":
            _write(folder / "thumbnails" / f"{page.stem}.png", thumbnail(json.loads(page.read_text()), page.stem))


def thumbnail(notebook: dict[str, list], stem: str) -> bytes:
    """The PNG of the figure that stands for a notebook: the one ``SHOWN`` says, else the first gallery of more than crops."""
    figures = [
        ("".join(cell["source"]), output["data"]["image/png"])
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    if not figures:
        msg = f"tutorials/{stem}.ipynb shows no figure: run it first."
        raise ValueError(msg)
    galleries = [png for code, png in figures if "pl.gallery" in code and 'keys=["crops"]' not in code]
    png = figures[SHOWN[stem]][1] if stem in SHOWN else [*galleries, figures[0][1]][0]
    return base64.b64decode("".join(png))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_bytes() != data:
        path.write_bytes(data)
