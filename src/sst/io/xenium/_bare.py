"""Bundles that lack what ``spatialdata_io`` needs: the cells' table and transcripts, without labels and boundaries."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from sst.io._read_log import ReadLog


def what_is_lacking(path: Path) -> str:
    """Why a bundle has to be read without labels and boundaries; ``""`` if it need not."""
    cells = path / "cells.zarr.zip"
    if not cells.exists():
        return "no cells.zarr.zip"
    with zipfile.ZipFile(cells) as archive:
        names = archive.namelist()
    masks = {n.split("masks/", 1)[1].split("/")[0] for n in names if "masks/" in n} & {"0", "1"}
    if masks != {"0", "1"}:
        return f"cells.zarr.zip has the mask sets {sorted(masks)}, nuclei (0) and cells (1) are needed"
    barcodes = read_barcodes(path)
    ids = decoded(pd.read_parquet(path / "cells.parquet", columns=["cell_id"])["cell_id"]).astype(str).to_numpy()
    if len(ids) != len(barcodes) or (ids != barcodes).any():
        missing = len(set(barcodes) - set(ids))
        return (
            f"cells.parquet has other rows than the feature matrix ({missing} cells are missing, or in another order)"
        )
    return ""


def read_barcodes(path: Path) -> np.ndarray:
    """Names of the feature matrix's cells."""
    import h5py

    with h5py.File(path / "cell_feature_matrix.h5") as file:
        return np.array([b.decode() for b in file["matrix/barcodes"][:]], dtype=object)


def read_bare(path: Path, pixel_size: float, log: ReadLog, *, transcripts: bool) -> SpatialData:
    """The table, and the transcripts, as :func:`spatialdata_io.xenium` has them; cells that one file lacks are left out."""
    from spatialdata import SpatialData
    from spatialdata.models import TableModel

    table = _table(path, log)
    points = {"transcripts": _points(path, pixel_size)} if transcripts else {}
    return SpatialData(points=points, tables={"table": TableModel.parse(table)})


def _table(path: Path, log: ReadLog) -> AnnData:
    import scanpy as sc

    table = sc.read_10x_h5(path / "cell_feature_matrix.h5", gex_only=False)
    cells = pd.read_parquet(path / "cells.parquet")
    cells["cell_id"] = decoded(cells["cell_id"])
    names = cells["cell_id"].astype(str)
    if names.duplicated().any():
        msg = f"{path / 'cells.parquet'}: cell_id {names[names.duplicated()].iloc[0]!r} is there twice."
        raise ValueError(msg)
    at = pd.Index(names).get_indexer(table.obs_names)
    log.skip("cells", int((at < 0).sum()), "in the feature matrix, not in cells.parquet")
    log.skip("rows of cells.parquet", len(cells) - int((at >= 0).sum()), "not in the feature matrix")
    if (at < 0).all():
        msg = f"{path}: cells.parquet ({list(names[:3])} ...) and the feature matrix ({list(table.obs_names[:3])} ...) have no cell in common."
        raise ValueError(msg)
    table = table[at >= 0].copy()
    rows = cells.iloc[at[at >= 0]].set_axis(table.obs_names)
    table.obsm["spatial"] = rows[["x_centroid", "y_centroid"]].to_numpy(dtype=np.float64)
    table.obs = rows.drop(columns=["x_centroid", "y_centroid"])
    return table


def _points(path: Path, pixel_size: float) -> Any:
    import dask.dataframe as dd
    from spatialdata.models import PointsModel
    from spatialdata.transformations import Scale

    table = dd.read_parquet(path / "transcripts.parquet")
    names = sorted(decoded(table["feature_name"].drop_duplicates().compute()).astype(str))
    kind = pd.CategoricalDtype(names)
    table["feature_name"] = table["feature_name"].map_partitions(
        lambda s: decoded(s).astype(str).astype(kind), meta=pd.Series(dtype=kind, name="feature_name")
    )
    return PointsModel.parse(
        table,
        coordinates={"x": "x_location", "y": "y_location", "z": "z_location"},
        feature_key="feature_name",
        instance_key="cell_id",
        transformations={"global": Scale([1 / pixel_size] * 2, axes=("x", "y"))},
        sort=True,
    )


def decoded(column: pd.Series) -> pd.Series:
    """Names that old bundles keep as bytes, as strings."""
    return column.str.decode("utf-8") if len(column) and isinstance(column.iloc[0], bytes) else column
