"""How the vendor of CosMx names and arranges its files, layout by layout."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CosMxLayout:
    """One way in which CosMx data have been given out.

    Attributes
    ----------
    gzipped
        Tables are ``.csv.gz``.
    pictures
        Name of a ``Morphology2D`` picture, from the slide and the number of the field of view.
    labels, compartments
        The same for the two label pictures.
    position_columns
        Columns of the positions file: field of view, and x and y in px, then in mm.
    name_columns
        Columns of metadata and transcripts that hold ``c_<slide>_<fov>_<cell>``.
    negative, system
        Names and number of the two kinds of controls.
    outside_row
        The expression matrix has a row of cell 0 for what lies outside cells.
    nowhere
        ``CellComp`` of a transcript outside cells.
    """

    gzipped: bool
    pictures: str
    labels: str
    compartments: str
    position_columns: tuple[str, str, str, str, str]
    name_columns: tuple[str, ...]
    negative: tuple[str, int]
    system: tuple[str, int]
    outside_row: bool
    nowhere: str


FLAT = CosMxLayout(
    gzipped=False,
    pictures="Morphology2D/{slide}_F{fov:03d}.TIF",
    labels="CellLabels/CellLabels_F{fov:03d}.tif",
    compartments="CompartmentLabels/CompartmentLabels_F{fov:03d}.tif",
    position_columns=("fov", "x_global_px", "y_global_px", "x_global_mm", "y_global_mm"),
    name_columns=("cell",),
    negative=("NegPrb{}", 10),
    system=("", 0),
    outside_row=True,
    nowhere="0",
)
ATOMX = CosMxLayout(
    gzipped=True,
    pictures="CellStatsDir/Morphology2D/20240101_120000_S1_C902_P99_N99_F{fov:05d}.TIF",
    labels="CellStatsDir/FOV{fov:05d}/CellLabels_F{fov:05d}.tif",
    compartments="CellStatsDir/FOV{fov:05d}/CompartmentLabels_F{fov:05d}.tif",
    position_columns=("FOV", "x_global_px", "y_global_px", "x_global_mm", "y_global_mm"),
    name_columns=("cell", "cell_id"),
    negative=("Negative{}", 10),
    system=("SystemControl{}", 6),
    outside_row=False,
    nowhere="None",
)
RELEASE = CosMxLayout(
    gzipped=False,
    pictures="Morphology2D_Normalized/20220405_130717_S{slide_number}_C902_P99_N99_F{fov:03d}.TIF",
    labels="CellLabels/CellLabels_F{fov:03d}.tif",
    compartments="CompartmentLabels/CompartmentLabels_F{fov:03d}.tif",
    position_columns=("fov", "x_global_px", "y_global_px", "x_global_mm", "y_global_mm"),
    name_columns=(),
    negative=("NegPrb{}", 10),
    system=("", 0),
    outside_row=False,
    nowhere="None",
)
LAYOUTS = {"flat": FLAT, "atomx": ATOMX, "release": RELEASE}
COMPARTMENTS = ("Nuclear", "Membrane", "Cytoplasm")  # of the codes 1, 2, 3
