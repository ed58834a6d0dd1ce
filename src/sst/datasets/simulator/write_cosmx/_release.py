"""Tables as the public CosMx liver release has them: a TileDB-SOMA group of the format before 1.0."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ._layouts import COMPARTMENTS, RELEASE
from ._tables import controls, expression_table, make_frame, metadata_table, target_names

if TYPE_CHECKING:
    from pathlib import Path

    from sst.datasets.simulator._slides import Slides


def _tiledb() -> Any:
    try:
        import tiledb
    except ImportError as error:
        msg = "layout='release' writes TileDB arrays: install 'sst-editing[tiledb]'."
        raise ImportError(msg) from error
    return tiledb


def write_soma(tissue: Slides, root: Path, *, y_up: bool) -> None:
    """Write the group of all slides: ``RNA/obs``, ``RNA/var``, ``RNA/X/counts``, ``RNA/obsm/transcriptCoords``.

    Slides are numbered from 1 in the order of ``config.slides`` (``slide_ID_numeric``, and in ``obs_id``
    ``c_<slide>_<fov>_<cell>``).
    """
    tiledb = _tiledb()
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    rna = root / "RNA"
    for folder in (rna, rna / "X", rna / "obsm"):
        folder.mkdir()
    names = target_names(tissue, RELEASE)
    all_obs, rows, columns, values = [], [], [], []
    coordinates = rna / "obsm" / "transcriptCoords"
    for slide, group in enumerate(tissue.config.slides):
        for fov in range(1, tissue.config.fovs + 1):
            view = tissue.draw(group, fov)
            frame = make_frame(tissue, fov, y_up=y_up)
            extra = controls(tissue, RELEASE, slide, fov, len(view.causes), view.labels)
            found = {k: np.concatenate([view.transcripts[k], extra[k]]) for k in extra}
            obs = metadata_table(view, frame, RELEASE, fov)
            obs = obs.drop(columns=["cell_ID"]).rename(
                columns={
                    "CenterX_local_px": "x_FOV_px",
                    "CenterY_local_px": "y_FOV_px",
                    "CenterX_global_px": "x_slide_px",
                    "CenterY_global_px": "y_slide_px",
                    "cell_type": "cellType",
                }
            )
            obs.insert(0, "obs_id", view.causes.index.to_numpy())
            obs["slide_ID_numeric"] = slide + 1
            obs["Run_Tissue_name"] = group
            obs["niche"] = np.where(view.causes["latent_HLA-A"] > view.causes["latent_HLA-A"].median(), "1", "2")
            for axis in ("x", "y"):
                obs[f"{axis}_slide_mm"] = obs[f"{axis}_slide_px"] * tissue.config.pixel_size / 1000
            all_obs.append(obs)
            counts = expression_table(view, found, RELEASE, names, fov)[names].to_numpy()
            row, column = np.nonzero(counts)
            rows.append(view.causes.index.to_numpy()[row])
            columns.append(column)
            values.append(counts[row, column])
            known = np.array([f"c_{slide + 1}_{fov}_{c}" for c in range(len(obs) + 1)])
            at = frame.local(found["x"].astype(np.float64), found["y"].astype(np.float64))
            code = view.compartments[found["y"].astype(int), found["x"].astype(int)]
            _append(
                coordinates,
                {
                    "obs_id": known[found["cell"]],
                    "slideID": np.full(len(code), slide + 1, np.int32),
                    "fov": np.full(len(code), fov, np.int32),
                    "x_FOV_px": at["x"],
                    "y_FOV_px": at["y"],
                    "z_FOV_slice": found["z"].astype(np.int32),
                    "cell_id": known[found["cell"]],
                    "CellId": found["cell"].astype(np.int32),
                    "CellComp": np.array([RELEASE.nowhere, *COMPARTMENTS])[code],
                    "target": np.array(names)[found["gene"]],
                },
                dims=1,
            )
    table = pd.concat(all_obs, ignore_index=True)
    text = {c: table[c].to_numpy(str) if table[c].dtype == object else table[c].to_numpy() for c in table}
    _append(rna / "obs", text, dims=1)
    _append(rna / "var", {"var_id": np.array(names), "features_id": np.array(names)}, dims=1)
    counted = {"obs_id": np.concatenate(rows).astype(str), "var_id": np.array(names)[np.concatenate(columns)]}
    _append(rna / "X" / "counts", {**counted, "value": np.concatenate(values).astype(np.float64)}, dims=2)
    _group(tiledb, rna / "X", ["counts"], "AssayMatrixGroup")
    _group(tiledb, rna / "obsm", ["transcriptCoords"], "AnnotationMatrixGroup")
    _group(tiledb, rna, ["obs", "var", "X", "obsm"], "SOMA")
    _group(tiledb, root, ["RNA"], "SOMACollection")


def _append(path: Path, columns: dict[str, np.ndarray], *, dims: int) -> None:
    """Write rows to a sparse array whose first ``dims`` columns are its (string) dimensions; made if it is not there."""
    tiledb = _tiledb()
    columns = {
        k: np.asarray(v, dtype=object) if np.asarray(v).dtype.kind == "U" else np.asarray(v) for k, v in columns.items()
    }
    names = list(columns)
    if not path.exists():
        pack = tiledb.FilterList([tiledb.ZstdFilter(level=1)])
        domain = tiledb.Domain(
            *(tiledb.Dim(name=d, domain=(None, None), tile=None, dtype="ascii", filters=pack) for d in names[:dims])
        )
        attrs = [
            tiledb.Attr(
                name=a,
                dtype="ascii" if columns[a].dtype == object else columns[a].dtype,
                filters=pack,
                var=columns[a].dtype == object,
            )
            for a in names[dims:]
        ]
        schema = tiledb.ArraySchema(
            domain=domain, attrs=attrs, sparse=True, allows_duplicates=path.name == "transcriptCoords", capacity=100_000
        )
        tiledb.Array.create(str(path), schema)
    with tiledb.open(str(path), "w") as array:
        at = tuple(columns[d].astype("S") for d in names[:dims])
        array[at if dims > 1 else at[0]] = {
            a: columns[a].astype("S").astype(object) if columns[a].dtype == object else columns[a] for a in names[dims:]
        }


def _group(tiledb: Any, path: Path, members: list[str], kind: str) -> None:
    tiledb.group_create(str(path))
    with tiledb.Group(str(path), "w") as group:
        for member in members:
            group.add(member, name=member, relative=True)
        group.meta["__soma_encoding_version"] = "0"
        group.meta["__soma_object_type"] = kind


def pack_pictures(folder: Path) -> Path:
    """Zip a slide's pictures (stored, as pictures do not shrink) and remove the folder."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
    shutil.rmtree(folder)
    return path
