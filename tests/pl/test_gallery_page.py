"""The gallery has every figure, with its code and its picture, and nothing that is drawn no more."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path

import pytest

import sst

DOCS = Path(__file__).parents[2] / "docs"
SPEC = importlib.util.spec_from_file_location("_gallery", DOCS / "_gallery.py")


@pytest.fixture(scope="module")
def entries() -> list[tuple[str, str]]:
    assert SPEC is not None
    assert SPEC.loader is not None
    module = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(module)
    return [entry for entry in module.entries(module.PAGE.read_text()) if entry[1]]


@pytest.mark.parametrize("name", [n for n in sst.pl.__all__ if inspect.isfunction(getattr(sst.pl, n))])
def test_every_figure_is_in_the_gallery(entries: list[tuple[str, str]], name: str) -> None:
    code = {picture: code for code, picture in entries}.get(f"{name}.png")
    assert code is not None, f"docs/gallery.md shows no figures/gallery/{name}.png: add an entry, run docs/_gallery.py"
    assert f"sst.pl.{name}(" in code
    assert f"{{func}}`sst.pl.{name}`" in (DOCS / "gallery.md").read_text()


def test_pictures_are_small_and_all_shown(entries: list[tuple[str, str]]) -> None:
    there = {path.name: path.stat().st_size for path in (DOCS / "figures" / "gallery").glob("*.png")}
    assert set(there) == {picture for _, picture in entries}
    assert max(there.values()) < 400_000
