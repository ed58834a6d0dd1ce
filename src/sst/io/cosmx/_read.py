"""A CosMx slide as SpatialData: what was found, brought together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._settings import logger
from sst._validate import check_choice, check_range, describe_options
from sst.io._raster import RasterError, RasterInfo, channel_names, raster_info, read_raster
from sst.io._read_log import ReadLog

from ._elements import build
from ._layout import QUIRKS, CosMxFiles, find_cosmx_files
from ._orientation import Orientation, find_orientation, orientation_from_intensity
from ._placement import Placement, cell_offsets, pixel_size_of, place, read_positions
from ._slide import Slide, fov_key
from ._tables import Cells, genes_first, read_expression, read_metadata
from ._transcripts import Transcripts, read_transcripts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spatialdata import SpatialData


def load_cosmx(
    path: Path,
    *,
    images: Path | None,
    tiledb: Path | None,
    slide: int | None,
    dataset: str | None,
    stitch: bool,
    fovs: Iterable[int | str] | None,
    image: str | None,
    channels: Sequence[str] | None,
    y_axis: str,
    pixel_size: float | None,
    polygons: bool,
    cache: Path | None,
) -> SpatialData:
    """See :func:`sst.pp.read_cosmx`."""
    check_choice("y_axis", y_axis, ("auto", "up", "down"))
    if image is not None:
        check_choice("image", image, ("morphology", "composite"))
    if pixel_size is not None:
        check_range("pixel_size", pixel_size, low=0, open_low=True)
    log = ReadLog()
    files = find_cosmx_files(path, images=images, tiledb=tiledb, dataset=dataset, image=image)
    _complain_if_missing(files, path, tiledb)
    if tiledb is None:
        obs = read_metadata(files.tables["metadata"], log, slide=slide)
        cells = read_expression(files.tables["expression"], obs, log, slide=slide)
    else:
        from ._soma import read_soma_cells

        cells, slide = read_soma_cells(tiledb, log, slide=slide)
    wanted = _chosen(fovs, files, cells, log)
    infos = _headers(files, wanted, log)
    if tiledb is None:
        genes = genes_first(cells.targets)
        transcripts = read_transcripts(files.tables["transcripts"], log, genes=genes, cache=cache, slide=slide)
    else:
        from ._soma import read_soma_transcripts

        transcripts = read_soma_transcripts(tiledb, log, slide=slide, genes=genes_first(cells.targets), cache=cache)
    _same_panel(cells, transcripts)
    kept = _complete(infos, files, cells, transcripts, log)
    keep = cells.obs["fov"].isin(kept).to_numpy()
    log.add("cells", "used", int(keep.sum()))
    if not keep.all():
        log.add("cells", "left", int((~keep).sum()), "their FOV is not read")
    cells = Cells(cells.obs.loc[keep].reset_index(drop=True), cells.counts[np.flatnonzero(keep)], cells.targets)
    first = infos[kept[0]]
    names = _channels(channels, files, first)
    orientation = _orient(y_axis, transcripts, files, kept, cells, infos, names)
    positions = read_positions(files.tables["positions"], log) if "positions" in files.tables else None
    shape = (first.shape[1], first.shape[2])
    size = pixel_size or pixel_size_of(positions, cells.obs, shape, files.layout)
    offsets, sense = cell_offsets(cells.obs, size)
    if not offsets:
        offsets, sense = transcripts.offsets, transcripts.global_sense
    where = place(kept, positions, offsets, sense, shape, up=orientation.up, pixel_size=size, log=log)
    logger.info("%d FOVs placed by %s, %s um a pixel", len(kept), where.source, size or "unknown")
    for why, count in files.left.items():
        log.add("files", "left", count, why)
    log.facts |= _facts(files, orientation, where, names)
    whole = Slide(files, kept, infos, cells, transcripts, orientation, where, names, size)
    return build(whole, log, stitch=stitch, polygons=polygons)


def _number(fov: int | str) -> int:
    digits = str(fov).upper().removeprefix("F")
    if not digits.isdigit():
        msg = f"fovs: {fov!r} is neither a number nor a key such as 'F012'."
        raise ValueError(msg)
    return int(digits)


def _complain_if_missing(files: CosMxFiles, path: Path, tiledb: Path | None) -> None:
    needed = {
        "expression": "*_exprMat_file.csv[.gz]",
        "metadata": "*_metadata_file.csv[.gz]",
        "transcripts": "*_tx_file.csv[.gz]",
    }
    missing = [name for kind, name in needed.items() if kind not in files.tables and tiledb is None]
    if not files.images:
        missing.append("pictures (Morphology2D/*_F###.TIF or CellComposite/CellComposite_F###.jpg)")
    if missing:
        there = [f.name for f in files.tables.values()]
        other = " That is a Xenium bundle: sst.pp.read_xenium." if (path / "experiment.xenium").exists() else ""
        msg = f"{path}: no {', no '.join(missing)}. There: {', '.join(there) or 'no table'}; {len(files.labels)} label pictures.{other}"
        raise FileNotFoundError(msg)


def _chosen(fovs: Iterable[int | str] | None, files: CosMxFiles, cells: Cells, log: ReadLog) -> list[int]:
    there = sorted(set(files.images) & set(cells.obs["fov"]))
    if fovs is not None:
        asked = sorted({_number(f) for f in fovs})
        unknown = [f for f in asked if f not in there]
        if unknown:
            msg = f"fovs: {unknown} have no picture or no cells. {describe_options(there, unknown[0])}"
            raise KeyError(msg)
        log.add("FOVs", "left", len(there) - len(asked), "not asked for")
        return asked
    if not there:
        msg = f"no FOV has both a picture ({sorted(files.images)[:5]} ...) and cells ({sorted(set(cells.obs['fov']))[:5]} ...)."
        raise ValueError(msg)
    log.skip("FOVs", len(set(files.images) - set(there)), "a picture, and no cells in the metadata")
    log.skip("FOVs", len(set(cells.obs["fov"]) - set(there)), "cells in the metadata, and no picture")
    return there


def _headers(files: CosMxFiles, fovs: list[int], log: ReadLog) -> dict[int, RasterInfo]:
    """Headers of the pictures; those that cannot be read are left. In a zip only the first one is opened."""
    infos: dict[int, RasterInfo] = {}
    bad: dict[int, str] = {}
    for fov in fovs:
        file = files.images[fov]
        try:
            infos[fov] = next(iter(infos.values())) if file.member and infos and file.size() else raster_info(file)
        except RasterError as error:
            bad[fov] = str(error)
    if infos:
        usual = Counter((i.shape[0], i.dtype) for i in infos.values()).most_common(1)[0][0]
        for fov in [f for f, i in infos.items() if (i.shape[0], i.dtype) != usual]:
            bad[fov] = (
                f"{files.images[fov]} has {infos[fov].shape[0]} channels of {infos[fov].dtype}, others {usual[0]} of {usual[1]}."
            )
            del infos[fov]
    if not infos:
        msg = f"no picture can be read; the first: {next(iter(bad.values()))}"
        raise ValueError(msg)
    for fov, why in bad.items():
        log.skip("FOVs", 1, f"{fov_key(fov)}: {why}")
    return infos


def _same_panel(cells: Cells, transcripts: Transcripts) -> None:
    known = set(cells.targets)
    seen = [g for g in transcripts.genes if g not in known]
    if len(transcripts.genes) == len(cells.targets) + len(seen) and len(seen) > len(known):
        msg = f"expression matrix ({cells.targets[:3]} ...) and transcripts ({seen[:3]} ...) are of different panels."
        raise ValueError(msg)


def _complete(
    infos: dict[int, RasterInfo], files: CosMxFiles, cells: Cells, transcripts: Transcripts, log: ReadLog
) -> list[int]:
    """FOVs that have everything that the others have; checks the labels' size too."""
    kept = []
    for fov, info in infos.items():
        why = ""
        if fov not in transcripts.parts:
            why = "no transcripts"
        elif files.labels and fov not in files.labels:
            why = "no label picture"
        elif files.labels and not files.labels[fov].member:
            try:
                labels = raster_info(files.labels[fov])
            except RasterError as error:
                why = str(error)
            else:
                if labels.shape[1:] != info.shape[1:]:
                    why = f"labels are {labels.shape[1:]}, the picture {info.shape[1:]} px"
        if why:
            log.skip("FOVs", 1, f"{fov_key(fov)}: {why}")
        else:
            kept.append(fov)
    rest = {f: n for f, n in transcripts.counts.items() if f not in set(kept)}
    if rest:
        log.add("transcripts", "left", sum(rest.values()), f"{len(rest)} FOVs that are not read")
    if not kept:
        msg = "no FOV has a picture, cells, transcripts and (if any has) labels; see the log for each one's reason."
        raise ValueError(msg)
    log.add("FOVs", "used", len(kept))
    return kept


def _channels(given: Sequence[str] | None, files: CosMxFiles, info: RasterInfo) -> list[str]:
    n = info.shape[0]
    if given is not None:
        names = [str(name) for name in given]
        if len(names) != n or len(set(names)) != n:
            msg = f"channels={names!r}: the pictures have {n} channels, each needs a name of its own."
            raise ValueError(msg)
        return names
    found = channel_names(info.description, n)
    if found is not None:
        return found
    if files.image_kind == "composite" and n == len(QUIRKS.composite_channels):
        return list(QUIRKS.composite_channels)
    if n == len(QUIRKS.channel_order):
        liver = files.layout == "tiledb" or "morphology2d_normalized" in files.image_folder.lower()
        names = list(QUIRKS.liver_channels if liver else QUIRKS.channel_order)
        logger.warning("the pictures do not name their channels: taken as %s (say channels= if that is wrong)", names)
        return names
    return [f"channel_{i}" for i in range(n)]


def _orient(
    y_axis: str,
    transcripts: Transcripts,
    files: CosMxFiles,
    fovs: list[int],
    cells: Cells,
    infos: dict[int, RasterInfo],
    names: list[str],
) -> Orientation:
    if y_axis != "auto":
        return Orientation(y_axis == "up")
    found = find_orientation(transcripts, files.labels, fovs)
    if found is not None:
        return found
    few = fovs[: min(4, len(fovs))]
    nuclear = next((i for i, n in enumerate(names) if n.upper() in ("DAPI", "U")), infos[few[0]].shape[0] - 1)
    pictures = {f: read_raster(files.images[f])[nuclear] for f in few}
    x, y = ({f: cells.obs.loc[cells.obs["fov"] == f, a].to_numpy(float) for f in few} for a in "xy")
    return orientation_from_intensity(pictures, x, y)


def _facts(files: CosMxFiles, orientation: Orientation, where: Placement, names: list[str]) -> dict[str, Any]:
    return {
        "layout": files.layout,
        "images": files.image_kind,
        "channels": names,
        "y_axis": "up" if orientation.up else "down",
        "y_axis_evidence": orientation.evidence,
        "shift": list(orientation.shift),
        "agreement": {fov_key(f): round(float(a), 6) for f, a in orientation.agreement.items()},
        "agreement_opposite": {fov_key(f): round(float(a), 6) for f, a in orientation.opposite.items()},
        "placement": where.source,
        "global_origin_px": list(where.origin),
        "global_direction": list(where.direction),
        "tables": {kind: Path(file).name for kind, file in files.tables.items()},
    }
