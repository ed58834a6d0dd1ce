"""What lies in a benchmark's folder, what it was made of, and by which code."""

from __future__ import annotations

import hashlib
import json
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from sst import __version__, _keys
from sst._files import new_file
from sst.train import from_dict, to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

Found = dict[str, Any]


@cache
def code() -> str:
    """Version of this package, and the first 8 digits of the SHA-256 of its source."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"


def hash_cells(adata: AnnData) -> str:
    """First 16 digits of the SHA-256 of paired cells: counts, crops, groups, slides, split, genes."""
    digest = hashlib.sha256(" ".join(adata.var_names).encode())
    for column in (_keys.CONDITION, _keys.SAMPLE, _keys.SPLIT):
        digest.update(" ".join(adata.obs[column].astype(str)).encode())
    for part in (adata.X.data, adata.X.indices, adata.X.indptr, np.asarray(adata.obsm[_keys.CROPS])):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def differences(there: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """What a model's note says otherwise than it is wanted now, a sentence each.

    Parameters
    ----------
    there
        The note: plain values, and in ``configs`` configurations as dictionaries, perhaps of an earlier version: settings added since had their
        defaults.
    mine
        What is wanted: the same, with configurations as such.
    """
    found = [
        f"{k}: {there.get(k)!r} there, {v!r} wanted" for k, v in mine.items() if k != "configs" and there.get(k) != v
    ]
    for name, config in mine["configs"].items():
        try:
            before = _flat(to_dict(from_dict(type(config), there["configs"][name])))
        except (KeyError, TypeError, ValueError) as error:
            found.append(f"{name}: not of this version ({error})")
            continue
        now = _flat(to_dict(config))
        found += [f"{name}.{k}: {before[k]!r} there, {v!r} wanted" for k, v in now.items() if before[k] != v]
    return found


def as_note(made_of: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values of what a model is made of."""
    configs = {name: to_dict(config) for name, config in made_of["configs"].items()}
    return json.loads(json.dumps({**made_of, "configs": configs}))


def write_measured(path: Path, made_of: Mapping[str, Any], found: Found, pictures: Mapping[str, np.ndarray]) -> None:
    """Keep what was measured of one method and gene set: one file, whole or not there."""
    text = json.dumps({"made_of": dict(made_of), "code": code(), "found": found})
    with new_file(path) as draft:
        np.savez(draft, note=np.array(text), **{f"picture {name}": images for name, images in pictures.items()})  # type: ignore[arg-type]


def read_measured(path: Path, made_of: Mapping[str, Any]) -> tuple[Found, dict[str, np.ndarray], str] | None:
    """What was measured, its pictures, and the code that did it; ``None`` if it is not there, damaged, or of something else."""
    try:
        with np.load(path, allow_pickle=False) as file:
            note = json.loads(str(file["note"]))
            pictures = {name.removeprefix("picture "): file[name] for name in file.files if name != "note"}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None
    if note["made_of"] != json.loads(json.dumps(dict(made_of))):
        return None
    return note["found"], pictures, str(note["code"])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return out
