"""Where a CosMx export keeps what: the vendor's quirks, and the search for its files."""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sst._settings import logger
from sst._validate import describe_options
from sst.io._raster import PICTURE_SUFFIXES, TIFF_SUFFIXES, RasterFile

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class CosMxQuirks:
    """Everything about CosMx exports that is a fact of the vendor's and not of ours.

    Three layouts are known. *flat* (releases of 2021-22): ``<name>_exprMat_file.csv`` and its siblings, ``fov`` in
    lower case, positions in pixels, ``CellComposite/*.jpg``, ``CellLabels/*.tif``, 0.18 um a pixel. *AtoMx*:
    ``.csv.gz``, ``FOV``, positions in pixels and millimetres or stage millimetres alone, both ``cell_ID`` (the label)
    and ``cell_id`` or ``cell`` (``c_<slide>_<fov>_<cell>``), pictures below ``CellStatsDir``. *tiledb*: the public
    liver release, pictures in one zip a slide and tables in a TileDB-SOMA group.

    Attributes
    ----------
    columns
        For each thing, the names of its column, first match first; compared without case if none matches exactly.
    negative, system
        Targets that are not genes: negative probes; system controls and false codes.
    pixel_sizes
        Micrometres a pixel of instruments, by the shape (y, x) of their FOVs; ``old_pixel_size`` for the flat layout.
    channel_order
        Letters of the five pages of ``Morphology2D`` when the page says nothing: blue, green, yellow, red, UV.
    liver_channels
        The same for the public liver release (``Morphology2D_Normalized``), whose pages 2 and 4 are known.
    composite_channels
        Names given to the planes of a ``CellComposite`` JPEG: colours, not stains.
    shifts
        Candidates for what is added to local coordinates so that pixel i covers [i, i+1): releases count from the
        pixel's corner or its centre. The data choose; the first is taken where they do not tell.
    """

    columns: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "fov": ("fov", "FOV"),
            "label": ("cell_ID", "cellID", "CellId", "cell_id", "cell"),
            "name": ("cell", "cell_id"),
            "x": ("x_local_px", "x_FOV_px", "CenterX_local_px"),
            "y": ("y_local_px", "y_FOV_px", "CenterY_local_px"),
            "x_global": ("x_global_px", "CenterX_global_px", "x_slide_px"),
            "y_global": ("y_global_px", "CenterY_global_px", "y_slide_px"),
            "x_mm": ("x_global_mm", "X_mm", "x_slide_mm"),
            "y_mm": ("y_global_mm", "Y_mm", "y_slide_mm"),
            "gene": ("target", "gene"),
            "z": ("z", "z_FOV_slice"),
            "compartment": ("CellComp",),
            "qv": ("qv",),
            "slide": ("slide_ID_numeric", "slideID", "slide_ID", "Slide"),
        }
    )
    negative: str = r"^(NegPrb|Negative)"
    system: str = r"^(SystemControl|FalseCode)"
    pixel_sizes: dict[tuple[int, int], float] = field(
        default_factory=lambda: {(4256, 4256): 0.12028, (4245, 4245): 0.12028, (3648, 5472): 0.18}
    )
    old_pixel_size: float = 0.18
    channel_order: str = "BGYRU"
    liver_channels: tuple[str, ...] = ("B", "G", "CD298/B2M", "R", "DAPI")
    composite_channels: tuple[str, ...] = ("composite_R", "composite_G", "composite_B")
    shifts: tuple[float, ...] = (0.0, 0.5, -0.5)

    def column(self, what: str, names: Sequence[str], *, file: object, required: bool = True) -> str | None:
        """The column of ``names`` that holds ``what``."""
        for candidate in self.columns[what]:
            if candidate in names:
                return candidate
        lower = {name.lower(): name for name in names}
        for candidate in self.columns[what]:
            if candidate.lower() in lower:
                return lower[candidate.lower()]
        if required:
            msg = f"{file}: no column for {what!r} (looked for {', '.join(self.columns[what])}). {describe_options(names)}"
            raise ValueError(msg)
        return None


QUIRKS = CosMxQuirks()

_TABLES = {
    "expression": re.compile(r"^(.*?)[_-]?exprMat(_file)?\.csv(\.gz)?$", re.I),
    "metadata": re.compile(r"^(.*?)[_-]?metadata(_file)?\.csv(\.gz)?$", re.I),
    "transcripts": re.compile(r"^(.*?)[_-]?tx(_file)?\.csv(\.gz)?$", re.I),
    "positions": re.compile(r"^(.*?)[_-]?fov_positions(_file)?\.csv(\.gz)?$", re.I),
    "polygons": re.compile(r"^(.*?)[_-]?polygons(_file)?\.csv(\.gz)?$", re.I),
}
_FOV = re.compile(r"(?:^|_)F(?:OV)?_?(\d{1,6})(?:_Z\d+)?$", re.I)
_DEPTH = 7
_NOT_READ = ("compartmentlabels", "celloverlay")


@dataclass
class CosMxFiles:
    """The files of one slide, by what they hold."""

    layout: str
    tables: dict[str, Path] = field(default_factory=dict)
    images: dict[int, RasterFile] = field(default_factory=dict)
    image_kind: str = ""  # morphology | composite
    image_folder: str = ""
    labels: dict[int, RasterFile] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)  # why -> how many files


def fov_number(name: str) -> int | None:
    """The FOV in a picture's file name (``CellLabels_F001.tif``, ``20221202_S2_F00012.TIF``), or ``None``."""
    found = _FOV.search(re.sub(r"(\.ome)?\.[^.]*$", "", Path(name).name, flags=re.I))
    return int(found.group(1)) if found else None


def find_cosmx_files(
    path: Path,
    *,
    images: Path | None = None,
    tiledb: Path | None = None,
    dataset: str | None = None,
    image: str | None = None,
) -> CosMxFiles:
    """Search a folder for the files of one slide.

    Parameters
    ----------
    path
        The slide's folder (searched to a depth of seven).
    images
        A folder or zip with the pictures, if they lie elsewhere.
    tiledb
        The TileDB-SOMA group, if the tables are there.
    dataset
        Prefix of the flat files, needed where the folder holds those of several slides.
    image
        ``"morphology"`` or ``"composite"``; ``None`` takes the first that is there.

    Raises
    ------
    FileNotFoundError
        A folder is not there, or no picture is found.
    ValueError
        Several slides and no ``dataset``; two pictures for one FOV.
    """
    for given in (path, images, tiledb):
        if given is not None and not Path(given).exists():
            msg = f"{given} does not exist."
            raise FileNotFoundError(msg)
    files = _walk(path, skip=tiledb) if path.is_dir() else []
    out = CosMxFiles("flat")
    if tiledb is None:
        _find_tables(files, out, dataset)
    else:
        out.layout = "tiledb"
    if images is not None:
        rasters = _zip_rasters(images) if images.is_file() else [RasterFile(str(f)) for f in _walk(images)]
    else:
        rasters = [RasterFile(str(f)) for f in files]
        if path.is_file():
            rasters = _zip_rasters(path)
        elif not any(r.suffix in TIFF_SUFFIXES + PICTURE_SUFFIXES for r in rasters):
            rasters = [r for f in files if f.suffix.lower() == ".zip" for r in _zip_rasters(f)]
    _find_rasters(rasters, out, image, loose=images is not None or tiledb is not None)
    if out.layout == "flat" and (
        (out.tables and all(".csv.gz" in t.name for t in out.tables.values()))
        or any("cellstatsdir" in r.path.lower() for r in [*out.images.values(), *out.labels.values()])
    ):
        out.layout = "atomx"
    logger.info(
        "%s: CosMx layout %r, %d FOVs with a %s picture, %d with labels, tables: %s",
        path, out.layout, len(out.images), out.image_kind or "(no)", len(out.labels),
        ", ".join(sorted(out.tables)) or ("TileDB" if tiledb is not None else "none"),
    )  # fmt: skip
    return out


def _walk(root: Path, skip: Path | None = None) -> list[Path]:
    found = []
    base = len(root.parts)
    for folder, subfolders, names in os.walk(root):
        here = Path(folder)
        subfolders[:] = sorted(
            s
            for s in subfolders
            if not s.startswith((".", "__")) and not s.endswith(".zarr") and len(here.parts) - base < _DEPTH
            and (skip is None or (here / s).resolve() != skip.resolve())
        )  # fmt: skip
        found += [here / n for n in sorted(names) if not n.startswith("._")]
    return found


def _zip_rasters(path: Path) -> list[RasterFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/") and not Path(n).name.startswith("._")]
    except zipfile.BadZipFile as error:
        msg = f"{path} is not a whole zip file ({error}); download it again."
        raise ValueError(msg) from error
    return [RasterFile(str(path), n) for n in names if "__MACOSX" not in n]


def _find_tables(files: list[Path], out: CosMxFiles, dataset: str | None) -> None:
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        for kind, pattern in _TABLES.items():
            match = pattern.match(file.name)
            if match is None:
                continue
            known = found.setdefault(match.group(1), {})
            if kind in known and known[kind].suffix != file.suffix:  # both packed and unpacked: take the unpacked
                known[kind] = min(known[kind], file, key=lambda f: f.suffix.lower() == ".gz")
                out.left["packed copy of a table"] = out.left.get("packed copy of a table", 0) + 1
            elif kind in known:
                msg = f"two {kind} files of the same name: {known[kind]} and {file}; point path at one slide's folder."
                raise ValueError(msg)
            else:
                known[kind] = file
    if dataset is not None:
        if dataset not in found:
            msg = f"dataset={dataset!r}: no such prefix among the tables. {describe_options(found, dataset)}"
            raise KeyError(msg)
        out.tables = found[dataset]
        return
    slides = {p: t for p, t in found.items() if "expression" in t or "transcripts" in t}
    if len(slides) > 1:
        msg = f"the folder holds the tables of {len(slides)} slides; choose with dataset=. {describe_options(slides)}"
        raise ValueError(msg)
    out.tables = next(iter(slides.values()), {})
    for tables in found.values():  # a positions file may carry another prefix
        for kind, file in tables.items():
            out.tables.setdefault(kind, file)


def _find_rasters(rasters: list[RasterFile], out: CosMxFiles, image: str | None, *, loose: bool) -> None:
    kinds: dict[str, dict[str, dict[int, RasterFile]]] = {"morphology": {}, "composite": {}, "labels": {}}
    for raster in rasters:
        if raster.suffix not in TIFF_SUFFIXES + PICTURE_SUFFIXES:
            continue
        whole = Path(raster.member or raster.path)
        name = raster.name.lower()
        fov = fov_number(raster.name)
        if name.startswith("celllabels"):
            kind = "labels"
        elif name.startswith("cellcomposite"):
            kind = "composite"
        elif name.startswith(_NOT_READ):
            kind = ""
        elif raster.suffix in TIFF_SUFFIXES and ("morphology2d" in str(whole.parent).lower() or loose):
            kind = "morphology"
        else:
            kind = ""
        if fov is None or not kind:
            known = next((k for k in _NOT_READ if name.startswith(k)), "other")
            why = f"pictures not used: {known}" if kind or fov is not None else "pictures not used: no FOV in the name"
            out.left[why] = out.left.get(why, 0) + 1
            continue
        group = kinds[kind].setdefault("labels" if kind == "labels" else str(whole.parent), {})
        if fov in group:
            msg = f"two {kind} pictures for FOV {fov}: {group[fov]} and {raster}; choose a folder with images=."
            raise ValueError(msg)
        group[fov] = raster
    out.labels = kinds["labels"].get("labels", {})
    for kind in [image] if image else ["morphology", "composite"]:
        groups = kinds[kind]
        if groups:
            if len(groups) > 1 and len({Path(g).name for g in groups}) == len(groups):
                logger.warning("several folders of %s pictures: %s; using the first", kind, sorted(groups))
            elif len(groups) > 1:
                msg = f"{kind} pictures in several folders: {sorted(groups)}; choose with images=."
                raise ValueError(msg)
            out.image_folder = sorted(groups)[0]
            out.images, out.image_kind = groups[out.image_folder], kind
            break
    unused = sum(len(f) for k in ("morphology", "composite") for g, f in kinds[k].items() if g != out.image_folder)
    if unused:
        out.left["pictures not used: of another kind"] = unused
