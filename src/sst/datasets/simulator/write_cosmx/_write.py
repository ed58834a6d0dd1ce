"""A simulated tissue in the vendor's own files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst._settings import logger, settings
from sst._validate import check_choice
from sst.datasets.simulator._truth import write_truth

from ._csv_stream import CsvStream
from ._layouts import LAYOUTS
from ._pictures import write_labels, write_morphology
from ._tables import (
    controls,
    expression_table,
    make_frame,
    metadata_table,
    polygon_table,
    target_names,
    transcript_table,
)

if TYPE_CHECKING:
    from sst.datasets.simulator._slides import Slides


def write_cosmx(
    tissue: Slides,
    folder: str | Path,
    *,
    layout: str = "flat",
    y_up: bool | None = None,
    positions: str = "both",
    channel_names: bool = True,
    compression: str | None = None,
    zipped: bool = False,
) -> list[Path]:
    """Write the slides as the vendor of CosMx would.

    Parameters
    ----------
    tissue
        The tissue.
    folder
        Where; one folder a slide is made in it, named after the slide.
    layout
        ``"flat"`` (releases of 2021-22: ``*_exprMat_file.csv`` and its siblings, ``Morphology2D``, ``CellLabels``), ``"atomx"``
        (exports of AtoMx: ``.csv.gz``, ``FOV``, names of cells, ``CellStatsDir``) or ``"release"`` (the public liver release:
        pictures alone in each slide's folder, and one TileDB-SOMA group of the old format for all, ``LiverDataReleaseTileDB``).
    y_up
        Local y runs upward; ``None``: as that layout usually has it (flat and release up, AtoMx down).
    positions
        Units of the positions file: ``"px"``, ``"mm"`` (columns ``Slide``, ``X_mm``, ``Y_mm``) or ``"both"``.
    channel_names
        Name the stains in the pictures; some exports do not.
    compression
        Of the pictures (``"zlib"``, ``"lzw"`` ...); ``None``: none.
    zipped
        With ``"release"``: pictures in one zip a slide, as they are downloaded.

    Returns
    -------
    The slides' folders (zips), in the order of ``config.slides``. The truth lies beside them: ``truth.parquet`` (the causes),
    ``truth_genes.csv``, ``truth.json``.
    """
    check_choice("layout", layout, list(LAYOUTS))
    check_choice("positions", positions, ["px", "mm", "both"])
    if zipped and layout != "release":
        msg = f"zipped=True belongs to layout='release', not to {layout!r}."
        raise ValueError(msg)
    up = layout != "atomx" if y_up is None else y_up
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for group in tissue.config.slides:
        path = out / group
        path.mkdir(parents=True, exist_ok=True)
        _write_slide(
            tissue,
            group,
            path,
            layout=layout,
            y_up=up,
            positions=positions,
            channel_names=channel_names,
            compression=compression,
        )
        paths.append(path)
        logger.info("wrote slide %s (%s layout) to %s", group, layout, path)
    if layout == "release":
        from ._release import pack_pictures, write_soma

        write_soma(tissue, out / "LiverDataReleaseTileDB", y_up=up)
        if zipped:
            paths = [pack_pictures(path) for path in paths]
    write_truth(tissue, out, layout=layout, y_up=up)
    return paths


def _write_slide(
    tissue: Slides,
    group: str,
    path: Path,
    *,
    layout: str,
    y_up: bool,
    positions: str,
    channel_names: bool,
    compression: str | None,
) -> None:
    form, config = LAYOUTS[layout], tissue.config
    slide = config.slides.index(group)
    names = target_names(tissue, form)
    end = ".csv.gz" if form.gzipped else ".csv"
    corners = []
    with ExitStack() as stack:
        files: dict[str, CsvStream] = {}
        if layout != "release":
            for kind in ("_exprMat_file", "_metadata_file", "_tx_file", "-polygons"):
                files[kind] = stack.enter_context(CsvStream(path / f"{group}{kind}{end}"))
        for fov in tqdm(range(1, config.fovs + 1), desc=f"write {group}", disable=not settings.progress):
            view = tissue.draw(group, fov, transcripts=layout != "release")
            frame = make_frame(tissue, fov, y_up=y_up)
            fill = {"slide": group, "slide_number": slide + 1, "fov": fov}
            write_morphology(
                path / form.pictures.format(**fill), view.images, names=channel_names, compression=compression
            )
            write_labels(path / form.labels.format(**fill), view.labels)
            write_labels(path / form.compartments.format(**fill), view.compartments)
            corners.append((fov, *frame.corner))
            if not files:
                continue
            extra = controls(tissue, form, slide, fov, len(view.causes), view.labels)
            found = {k: np.concatenate([view.transcripts[k], extra[k]]) for k in extra}
            files["_exprMat_file"].write(expression_table(view, found, form, names, fov))
            files["_metadata_file"].write(metadata_table(view, frame, form, fov))
            files["_tx_file"].write(transcript_table(view, found, frame, form, names, slide, fov))
            files["-polygons"].write(polygon_table(view, frame, form, fov))
    if files:
        with CsvStream(path / f"{group}_fov_positions_file{end}") as file:
            file.write(_positions(corners, form.position_columns, positions, config.pixel_size))


def _positions(
    corners: list[tuple[int, float, float]], columns: tuple[str, ...], positions: str, pixel_size: float
) -> pd.DataFrame:
    table = pd.DataFrame(corners, columns=["fov", "x", "y"])
    mm = np.round(table[["x", "y"]].to_numpy() * pixel_size / 1000, 9)
    if positions == "mm":
        return pd.DataFrame({"Slide": 1, "X_mm": mm[:, 0], "Y_mm": mm[:, 1], "FOV": table["fov"]})
    out = pd.DataFrame({columns[0]: table["fov"], columns[1]: table["x"], columns[2]: table["y"]})
    if positions == "both":
        out[columns[3]], out[columns[4]] = mm[:, 0], mm[:, 1]
    return out
