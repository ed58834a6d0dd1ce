"""Read a CosMx slide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sst._arguments import checked
from sst._keys import SST

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from os import PathLike

    from spatialdata import SpatialData


@checked
def read_cosmx(
    path: str | PathLike[str],
    *,
    images: str | PathLike[str] | None = None,
    tiledb: str | PathLike[str] | None = None,
    slide: int | None = None,
    dataset: str | None = None,
    stitch: bool = False,
    fovs: Iterable[int | str] | None = None,
    image: Literal["morphology", "composite"] | None = None,
    channels: Sequence[str] | None = None,
    y_axis: Literal["auto", "up", "down"] = "auto",
    pixel_size: float | None = None,
    polygons: bool = True,
    cache: str | PathLike[str] | None = None,
) -> SpatialData:
    """Read a CosMx slide: flat files (old or AtoMx), or pictures and TileDB group of the public liver release.

    The layout is found and logged. So is the way the y axis runs: the one for which transcripts fall into the label
    they are assigned to, counted in every FOV.

    Parameters
    ----------
    path
        The slide's folder, or the zip with its pictures.
    images
        Folder or zip with the pictures (``Morphology2D`` TIFs), if they are not in ``path``.
    tiledb
        Root of the TileDB-SOMA group (format before 1.0), if the tables are in one. Needs ``sst-editing[tiledb]``.
    slide
        Which slide of the TileDB group or of the tables (``slide_ID_numeric``, ``slide_ID``, or the names ``c_<slide>_<fov>_<cell>``);
        needed where they have several.
    dataset
        Prefix of the flat files; needed where the folder has those of several slides.
    stitch
        One lazy mosaic in place of elements for each FOV.
    fovs
        Only these (``12`` or ``"F012"``); all that are complete by default.
    image
        ``"morphology"``: the stains; ``"composite"``: the RGB JPEGs, whose planes are colours and not stains.
        By default the stains where they are there.
    channels
        Names of the pictures' channels, in order, in place of those found: in the first page of the TIF; else
        ``B, G, Y, R, U``, in the liver release ``B, G, CD298/B2M, R, DAPI``; of a composite ``composite_R``,
        ``composite_G``, ``composite_B``.
    y_axis
        ``"auto"``, or which way local y points.
    pixel_size
        Micrometres a pixel; by default from positions in px and mm, else the instrument's.
    polygons
        Read the cells' polygons where there is a file of them.
    cache
        Where more than 20 million transcripts are kept, sorted by FOV (parquet); by default below
        ``sst.settings.data_dir``.

    Returns
    -------
    SpatialData with, for each FOV ``F001`` (or with ``stitch`` under the names after the underscore, once):

    `images["F001_image"]` : dask, ``(c, y, x)``
        Channel names as coordinates of ``c``.
    `labels["F001_labels"]` : dask, ``(y, x)``, int32
        The FOV's cell numbers (``obs["label"]``); in a mosaic numbered through.
    `points["F001_points"]` : dask data frame
        x, y (px of the image; pixel i covers [i, i+1)), gene (category; genes first, then controls), cell_id (the
        label, 0 in no cell) and, where there, z_slice, compartment, qv.
    `shapes["F001_polygons"]`
        Where there is a polygons file.
    `tables["table"]` : AnnData
        X : CSR float32, counts of the segmented cells. obs : fov, cell_id, x_px, y_px (centre in px of the image),
        label, region, negative_probe_counts, system_control_counts and the metadata's own columns.
        obsm["spatial"] : n x 2, global.

    Coordinate systems: ``global`` (micrometres, or px if ``pixel_size`` is unknown; rows down, origin at the corner of
    the slide's FOVs) and one for each FOV (its pixels). ``attrs["sst"]["read"]`` says what was used and what was left,
    ``attrs["sst"]["sample"]`` is the folder's name.

    Raises
    ------
    FileNotFoundError
        A needed file is missing.
    ValueError
        A file is truncated, unpacks beyond measure, has counts that are none, or its rows contradict each other; tables of several
        slides and no ``slide``; neither way up puts half of the transcripts into their
        labels.
    KeyError
        ``fovs``, ``dataset`` or ``slide`` is not there.
    """
    from sst.io import slide_name
    from sst.io.cosmx import load_cosmx

    sdata = load_cosmx(
        Path(path),
        images=None if images is None else Path(images),
        tiledb=None if tiledb is None else Path(tiledb),
        slide=slide,
        dataset=dataset,
        stitch=stitch,
        fovs=fovs,
        image=image,
        channels=channels,
        y_axis=y_axis,
        pixel_size=pixel_size,
        polygons=polygons,
        cache=None if cache is None else Path(cache),
    )
    sdata.attrs[SST]["sample"] = slide_name(Path(path))
    return sdata
