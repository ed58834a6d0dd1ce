"""What an evaluation consists of: conditions, cells, genes, and what of it was done already."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sst._files import read_json, write_json, write_text
from sst._validate import check_genes
from sst.editing import take_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

CONTROLS = ("random", "fade")


@dataclass(frozen=True)
class Condition:
    """One cell of the table: images of a kind, of an edit (or none), of some cells.

    ``edit`` is ``"none"`` (before), ``"chosen"``, ``"all"``, ``"random"`` (as many other genes, of like expression) or
    ``"fade"`` (an inversion's code faded as after an edit, genes unedited).
    """

    images: str
    edit: str
    cells: str

    @property
    def role(self) -> str:
        """``before``, ``after`` or ``control``."""
        return {"none": "before", "random": "control", "fade": "control"}.get(self.edit, "after")

    @property
    def name(self) -> str:
        """For files and messages."""
        return f"{self.images}-{self.edit}-{self.cells}".replace(" ", "_")


def image_models(adata: AnnData, model: Any) -> dict[str, Any]:
    """Models by what tables call their images: ``{"generated": GAN, "reconstructed": Inversion, "this cell": Editor}``, and rivals by theirs.

    ``None``: the last of each kind that was trained on the object.

    Raises
    ------
    KeyError
        ``None``, and there is none.
    ValueError
        A model makes no images, or two are of one kind.
    """
    from sst import models

    if model is None:
        own = models.own_models(adata)
        model = list({images: name for name, kind in own.items() if (images := models.images_name(kind))}.values())
        if not model:
            msg = "no image model was trained on this object: pass model= (a GAN, an Editor, an Inversion, a folder, or a list of them)."
            raise KeyError(msg)
    wanted = list(model) if isinstance(model, (list, tuple)) else [model]
    out: dict[str, Any] = {}
    for one in wanted:
        loaded = one if hasattr(one, "generate") else models.resolve(adata, one)
        images = models.images_name(str(loaded.registry.kind))
        if not images or not hasattr(loaded, "generate"):
            msg = f"model={one!r} is of kind {loaded.registry.kind!r}, which makes no images. Possible: a GAN, an Editor, an Inversion, a rival."
            raise ValueError(msg)
        if images in out:
            msg = f"model={one!r}: another model of kind {loaded.registry.kind!r} is among them already; evaluate them one after the other."
            raise ValueError(msg)
        out[images] = loaded
    return out


def gene_sets(
    adata: AnnData, genes: Any, controls: Sequence[str], counts: Any, *, learn: np.ndarray, seed: int
) -> dict[str, list[str] | None]:
    """``chosen`` (if any), ``all`` and the ``random`` control: as many genes, each as expressed (in ``counts``) as a chosen one."""
    sets: dict[str, list[str] | None] = {}
    if genes is not None:
        chosen = check_genes(list(adata.var_names), genes)
        sets["chosen"] = chosen
    sets["all"] = None
    if genes is not None and "random" in controls:
        rows = np.flatnonzero(learn)
        rows = rows if len(rows) <= 5000 else np.sort(np.random.default_rng(seed).choice(rows, 5000, replace=False))
        part = take_rows(counts, rows)
        mean = np.log1p(part.mean(axis=0))
        spread = np.ptp(part, axis=0) > 0  # a gene that is the same everywhere cannot be edited
        free = [k for k in range(adata.n_vars) if adata.var_names[k] not in set(chosen) and spread[k]]
        rng = np.random.default_rng(seed)
        picked: list[str] = []
        for gene in chosen:
            if not free:
                break
            far = np.abs(mean[free] - mean[adata.var_names.get_loc(gene)])
            near = np.argsort(far, kind="stable")[: max(1, min(5, len(free)))]
            picked.append(str(adata.var_names[free.pop(int(rng.choice(near)))]))
        if picked:
            sets["random"] = picked
    return sets


def conditions_of(
    kinds: Sequence[str], edits: Sequence[str], cells: Sequence[str], controls: Sequence[str]
) -> list[Condition]:
    """Before, after and controls of every kind of image and choice of cells."""
    out = []
    for group in cells:
        for kind in kinds:
            fade = ["fade"] if kind == "reconstructed" and "fade" in controls else []
            out += [Condition(kind, edit, group) for edit in ["none", *edits, *fade]]
    return out


def hash_of(value: Any) -> str:
    """A short digest of names, arrays and numbers."""
    digest = hashlib.sha256()
    if isinstance(value, np.ndarray):
        digest.update(np.ascontiguousarray(value).tobytes())
    else:
        digest.update(json.dumps(value, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:12]


class Folder:
    """Finished parts of an evaluation on disk, so that a second run takes up where the first stopped.

    Raises
    ------
    ValueError
        The folder holds an evaluation with other settings; the message says which differ.
    """

    def __init__(self, path: Path | None, fingerprint: dict[str, Any]) -> None:
        self.path = path
        if path is None:
            return
        (path / "parts").mkdir(parents=True, exist_ok=True)
        note = path / "evaluation.json"
        fresh = json.loads(json.dumps(fingerprint, default=str))
        if note.exists():
            old = read_json(note)
            other = [k for k in {*old, *fresh} if old.get(k) != fresh.get(k)]
            if other:
                shown = "; ".join(f"{k}: {old.get(k)!r} there, {fresh.get(k)!r} now" for k in sorted(other)[:4])
                msg = f"out={str(path)!r} holds another evaluation ({shown}). Choose another folder."
                raise ValueError(msg)
        else:
            write_json(note, fresh)

    def load(self, name: str) -> dict[str, pd.DataFrame] | None:
        """The tables of a part, if it was finished."""
        if self.path is None or not (self.path / "parts" / f"{name}.done").exists():
            return None
        return {
            p.name.removeprefix(f"{name}.").removesuffix(".csv"): _read_table(p)
            for p in sorted((self.path / "parts").glob(f"{name}.*.csv"))
        }

    def save(self, name: str, tables: dict[str, pd.DataFrame]) -> None:
        """Write a part; it counts as done only when all of it is there."""
        if self.path is None:
            return
        for key, table in tables.items():
            if len(table.columns):
                write_text(self.path / "parts" / f"{name}.{key}.csv", table.to_csv(index=False))
        write_text(self.path / "parts" / f"{name}.done", "")


def _read_table(path: Path) -> pd.DataFrame:
    """A table as it was written, numbers to the last bit (before pandas 3 that had to be asked for)."""
    options: dict[str, Any] = {} if int(pd.__version__.split(".")[0]) >= 3 else {"float_precision": "round_trip"}
    return pd.read_csv(path, keep_default_na=False, na_values=[""], **options)
