"""The rules of the house: one-way imports, fast import, lean files."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "sst"
# Each room imports only from rooms before it.
ROOMS = ["editing", "metrics", "nn", "io", "train", "models", "datasets", "pp", "tl", "pl", "report", "cli"]
PURE = {"editing": {"anndata", "spatialdata"}, "metrics": {"anndata", "spatialdata"}, "nn": {"anndata", "spatialdata"}}
FILES = sorted(SRC.rglob("*.py"))


def _imports(path: Path) -> list[tuple[str, bool]]:
    """Absolute names of the modules that a file imports, and whether at its top level (run at import)."""
    package = ["sst", *path.relative_to(SRC).with_suffix("").parts]
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names] if module.count(".") == 0 else [module]
            found += [(name, id(node) in top) for name in names]
    return found


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "sst" and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_one_way(path: Path) -> None:
    parts = path.relative_to(SRC).parts
    if len(parts) == 1:  # the ground floor and the two doors
        if parts[0] in {"__init__.py", "__main__.py"}:
            return
        assert not [m for m, _ in _imports(path) if _room(m)]
        return
    here = ROOMS.index(parts[0])
    wrong = [m for m, _ in _imports(path) if (room := _room(m)) and ROOMS.index(room) > here]
    assert not wrong, f"{parts[0]} imports from rooms above it: {wrong}"
    forbidden = PURE.get(parts[0], set())
    assert not [m for m, _ in _imports(path) if m.split(".")[0] in forbidden]


MODULES = {".".join(["sst", *p.relative_to(SRC).with_suffix("").parts]).removesuffix(".__init__"): p for p in FILES}


def _targets(path: Path) -> set[str]:
    """Modules of the house that a file imports, at its top or deferred: ``from sst.io import _raster`` names the file."""
    package = ["sst", *path.relative_to(SRC).with_suffix("").parts]
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in typing_only:
            base = package[: -node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            files = {f"{module}.{a.name}" for a in node.names} & set(MODULES)
            out |= files or ({module} if module in MODULES else set())
    return out


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_rooms_and_wings_speak_through_their_face(path: Path) -> None:
    """A private file is open to its own folder, and to the wings inside that folder."""
    here = path.parent
    wrong = [
        m for m in _targets(path) if MODULES[m].name != "__init__.py" and not here.is_relative_to(MODULES[m].parent)
    ]
    assert not wrong, f"imports private files of other rooms or wings: {wrong}"


def test_no_import_circles() -> None:
    """Deferred imports count; what is imported for type checking alone does not."""
    arrows = {m: {t for t in _targets(p) if t != m} for m, p in MODULES.items() if p.name != "__init__.py"}
    arrows |= {m: _targets(p) for m, p in MODULES.items() if p.name == "__init__.py" and m != "sst"}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"a circle of imports: {' -> '.join([*trail[trail.index(module) :], module])}"
        if module not in done:
            for target in sorted(arrows.get(module, ())):
                visit(target, (*trail, module))
            done.add(module)

    for module in sorted(arrows):
        visit(module, ())


@pytest.mark.parametrize("path", sorted((SRC / "pl").rglob("*.py")), ids=lambda p: p.name)
def test_plots_do_not_import_torch(path: Path) -> None:
    assert not [m for m, _ in _imports(path) if m.split(".")[0] == "torch"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_files_are_lean_and_quiet(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 500, "split this file"
    tree = ast.parse(text)
    in_cli = path.relative_to(SRC).parts[0] in {"cli", "__main__.py"}
    calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert not calls & {"pickle.load", "pickle.loads", "exec", "eval"}
    assert in_cli or "print" not in calls
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.Assert)], "raise, do not assert"


def test_every_room_and_wing_is_described() -> None:
    page = (SRC.parents[1] / "docs" / "architecture.md").read_text()
    wings = [p.parent.relative_to(SRC) for p in FILES if p.name == "__init__.py" and p.parent != SRC]
    missing = [str(w) for w in wings if f"`{w}`" not in page and f"`{w.name}`" not in page]
    assert not missing, f"add to docs/architecture.md: {missing}"


def test_init_files_only_import() -> None:
    for path in SRC.glob("*/**/__init__.py"):
        for node in ast.parse(path.read_text()).body:
            ok = isinstance(node, (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.AnnAssign))
            assert ok, f"{path}: only imports and __all__ belong here"


def test_all_is_sorted() -> None:
    for path in SRC.glob("*/**/__init__.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names = ast.literal_eval(node.value)
                assert names == sorted(names), path


@pytest.mark.parametrize("room", ["pp", "tl", "pl", "metrics", "editing", "models", "io", "datasets", "report"])
def test_public_names_are_in_the_reference(room: str) -> None:
    """What other rooms need from a face beside this is imported there without standing in ``__all__``."""
    entries = (SRC.parents[1] / "docs" / "api.md").read_text().split()
    body = ast.parse((SRC / room / "__init__.py").read_text()).body
    lists = [n.value for n in body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    missing = {f"{room}.{name}" for name in ast.literal_eval(lists[0])} - set(entries)
    assert not missing, f"add to docs/api.md: {sorted(missing)}"


def test_import_is_light() -> None:
    code = (
        "import sys, json, sst; heavy=['torch','torchvision','spatialdata','scanpy','cellpose','lpips','matplotlib'];"
        "print(json.dumps([m for m in heavy if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


LEAN = ["cellpose", "imagecodecs", "imageio", "lpips", "pytorch_optimizer", "tensorboard", "tiledb", "torchvision"]


def test_a_lean_install_has_every_room() -> None:
    """What one function needs is imported by that function: docs/installation.md says which."""
    code = (
        f"import sys; sys.modules |= dict.fromkeys({LEAN!r}); import sst, sst.cli;"  # None: cannot be imported
        "[getattr(getattr(sst, r), n) for r in 'datasets editing io metrics models pl pp report tl'.split()"
        " for n in getattr(sst, r).__all__]"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    page = (SRC.parents[1] / "docs" / "installation.md").read_text()
    assert not [name for name in LEAN if f"`{name.replace('_', '-')}`" not in page]
