"""The notebooks are valid, were executed without an error, are small, and use only names that exist."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
PAGES = sorted(
    [*(ROOT / "docs").glob("*.md"), ROOT / "docs" / "tutorials" / "index.md", *(ROOT / "tutorials").glob("*.md")]
    + [ROOT / "README.md"]
)
MOST_BYTES = 1_500_000


def _dotted(node: ast.expr) -> list[str] | None:
    """``["sst", "tl", "edit"]`` of the expression ``sst.tl.edit``; ``None`` of anything that is no chain of names."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return [*reversed(names), node.id][-1:] + names[::-1] if isinstance(node, ast.Name) else None


def problems(source: str) -> list[str]:
    """What a piece of code says of ``sst`` that is not so: names that do not exist, keywords that no function takes."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and (names := _dotted(node)) and names[0] == "sst" and len(names) > 2:
            try:
                _resolve(names)
            except AttributeError as error:
                found.append(f"{'.'.join(names)}: {error}")
        if isinstance(node, ast.Call) and (names := _dotted(node.func)) and names[0] == "sst":
            try:
                function = _resolve(names)
                parameters = inspect.signature(function).parameters
            except (AttributeError, TypeError, ValueError):
                continue
            takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            given = [k.arg for k in node.keywords if k.arg]
            found += [f"{'.'.join(names)}({k}=)" for k in given if k not in parameters and not takes_any]
            positional = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
            several = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
            if len(node.args) > len(positional) and not several:
                found.append(f"{'.'.join(names)}: {len(node.args)} positional arguments")
    return found


def _resolve(names: list[str]) -> object:
    value: object = importlib.import_module("sst")
    for name in names[1:]:
        value = getattr(value, name)
    return value


def unknown_names(prose: str) -> list[str]:
    """Names such as ``sst.tl.edit`` in Markdown's inline code that do not exist."""
    found = []
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", prose, flags=re.M | re.S)):
        for names in re.findall(r"\bsst(?:\.[a-z]\w*){2,}", code, flags=re.I):  # private ones are anybody's guess
            try:
                _resolve(names.split("."))
            except AttributeError:
                found.append(names)
    return found


def test_unknown_names_are_found() -> None:
    assert unknown_names("`sst.tl.edit` and `x = sst.pl.gallery(adata)`, sst.tl.nothing") == []
    assert unknown_names("`sst.tl.edits`, `y = sst.nothing.at_all(1)`") == ["sst.tl.edits", "sst.nothing.at_all"]


def test_problems_are_found() -> None:
    assert problems("sst.tl.edit(adata, genes=None)\nsst.settings.progress = False") == []
    assert len(problems("sst.tl.edits(adata)")) == 1
    assert problems("sst.tl.edit(adata, gene=None)") == ["sst.tl.edit(gene=)"]
    assert problems("sst.tl.edit(a, b, c, d)") == ["sst.tl.edit: 4 positional arguments"]


def test_there_are_notebooks() -> None:
    assert {"first_edit", "this_cell", "trust", "donors", "inversion", "workflow"} <= {path.stem for path in NOTEBOOKS}
    assert ROOT / "tutorials" / "real_slides.md" in PAGES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path: Path) -> None:
    assert path.stat().st_size < MOST_BYTES
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it from top to bottom"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "shows no figure"
    assert problems("\n".join(cell.source for cell in cells)) == []
    assert unknown_names("\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_shows_no_paths_of_a_machine(path: Path) -> None:
    found = re.findall(r"(?:/tmp|/home|/root|/Users|/work|site-packages)/?[\w./-]*", path.read_text())
    assert not found


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_pages_use_what_exists(path: Path) -> None:
    text = path.read_text()
    for block in re.findall(r"^```(?:python|\{code-block\} python)\n(.*?)^```", text, flags=re.M | re.S):
        try:
            ast.parse(block)
        except SyntaxError as error:
            pytest.fail(f"not Python: {error}\n{block}")
        assert problems(block) == []
    assert unknown_names(text) == []
