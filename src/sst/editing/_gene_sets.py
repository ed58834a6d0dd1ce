"""Sets of genes: names, lists, dicts, GMT files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sst._arguments import checked
from sst._validate import check_genes, check_members

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@checked
def read_gmt(path: str | Path) -> dict[str, list[str]]:
    """Read a GMT file (set, description, genes; tab-separated): name -> genes."""
    if "\0" in str(path):
        msg = f"path={str(path)!r} holds a NUL: no file has that name."
        raise ValueError(msg)
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.rstrip("\r\n").split("\t")
        genes = [g.strip() for g in fields[2:] if g.strip()]
        if len(fields) < 3 or not genes:
            msg = f"{path}, line {number}: expected name, description and genes between tabs, got {line[:60]!r}."
            raise ValueError(msg)
        sets[fields[0].strip()] = genes
    if not sets:
        msg = f"{path} holds no gene set."
        raise ValueError(msg)
    return sets


@checked
def resolve_genes(
    genes: str | Path | Iterable[str] | Mapping[str, Iterable[str]] | None, var_names: Sequence[str]
) -> list[str] | None:
    """Names of the chosen genes, without repeats; ``None`` for all.

    Parameters
    ----------
    genes
        A gene, a list, ``{set: genes}`` or a ``.gmt`` file (the union of their sets), or ``None``. A set of a GMT file is
        chosen with ``"file.gmt:SET"``. Genes of a GMT file or of a dict's sets that the panel lacks are left out, since
        no set was made for a panel; a set of which none is on the panel is an error.
    var_names
        The genes of the object.

    Raises
    ------
    KeyError
        A gene, or every gene of a set, is unknown.
    """
    if genes is None:
        return None
    if isinstance(genes, (str, Path)) and ".gmt" in str(genes) and str(genes) not in set(var_names):
        name, _, chosen = str(genes).partition(".gmt:")
        path = Path(f"{name}.gmt") if chosen else Path(name)
        sets = read_gmt(path)
        if chosen:
            if chosen not in sets:
                msg = f"genes: {path} has no set {chosen!r}. Possible: {sorted(sets)[:12]}."
                raise KeyError(msg)
            sets = {chosen: sets[chosen]}
        genes = sets
    if isinstance(genes, Mapping):
        known = set(var_names)
        union: list[str] = []
        for name, members in genes.items():
            members = check_members(members, name=f"genes[{name!r}]")
            on_panel = [g for g in members if g in known]
            if not on_panel:
                msg = f"genes: none of the {len(members)} genes of the set {name!r} is on the panel of {len(known)}."
                raise KeyError(msg)
            union += on_panel
        return check_genes(var_names, union)
    if isinstance(genes, Path):
        genes = str(genes)
    return check_genes(var_names, genes)
