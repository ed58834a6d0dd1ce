"""Read a Xenium bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sst._arguments import checked
from sst._keys import SST

if TYPE_CHECKING:
    from os import PathLike

    from spatialdata import SpatialData


@checked
def read_xenium(
    path: str | PathLike[str], *, min_qv: float | None = 20.0, boundaries: bool = True, clusters: bool = True
) -> SpatialData:
    """Read a Xenium bundle of the onboard analysis 1.x to 4.x, with :func:`spatialdata_io.xenium`.

    Parameters
    ----------
    path
        The bundle's folder (``outs``).
    min_qv
        Transcripts of a lower quality are left out; ``None`` keeps all. The vendor's own counts use 20.
    boundaries
        Read the polygons of cells and nuclei.
    clusters
        Join ``analysis/clustering/*/clusters.csv`` (or those in ``analysis.tar.gz``) to ``obs``.

    Returns
    -------
    SpatialData with the elements of :func:`spatialdata_io.xenium`, and these differences:

    `images["morphology_focus"]`, `images["morphology_mip"]` : dask, ``(c, y, x)``
        Those that are there, read tile by tile; the stains' names are the coordinates of ``c``.
    `points["transcripts"]` : dask data frame
        x, y, z in micrometres, feature_name (category), cell_id, qv, ... with ``qv >= min_qv``.
    `tables["table"]` : AnnData
        X : CSR float32, genes only. obs : cell_id, the vendor's columns, sums of each kind of control,
        x_px, y_px (cell centre in pixels), x_nucleus_um, y_nucleus_um (mean of the nucleus boundary's vertices; of the
        larger one where a cell has several; NaN where it has none), a categorical column for each clustering, named as
        its folder. obsm["spatial"] : n x 2, micrometres. obsm["protein"] : proteins, where measured.

    The coordinate system ``global`` is in pixels, as :func:`spatialdata_io.xenium` has it. ``attrs["sst"]`` has the pixel size in
    micrometres and, in ``["read"]``, what was used and what was left.

    Raises
    ------
    FileNotFoundError
        A needed file is missing.
    ValueError
        A file is truncated, ids are there twice, or files contradict each other.

    Notes
    -----
    Labels and boundaries are left out where ``cells.zarr.zip`` is missing, has one set of masks (imported segmentations), or
    ``cells.parquet`` has other rows than the feature matrix; crops need neither.
    """
    from sst.io import slide_name
    from sst.io.xenium import load_xenium

    sdata = load_xenium(Path(path), min_qv=min_qv, boundaries=boundaries, clusters=clusters)
    sdata.attrs[SST]["sample"] = slide_name(Path(path))
    return sdata
