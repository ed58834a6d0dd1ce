"""How the vendor of Xenium names things, version by version."""

from __future__ import annotations

from dataclasses import dataclass

STAINS = {
    "DAPI": ("DAPI", "ch0000_dapi.ome.tif"),
    "CD298/B2M": ("ATP1A1/CD45/E-Cadherin", "ch0001_atp1a1_cd45_e-cadherin.ome.tif"),
    "rRNA": ("18S", "ch0002_18s.ome.tif"),
    "PanCK": ("AlphaSMA/Vimentin", "ch0003_alphasma_vimentin.ome.tif"),
}
"""Our stain -> the vendor's name of the stain that shows the same compartment, and its file from version 4 on."""


@dataclass(frozen=True, kw_only=True)
class XeniumLayout:
    """One version of the vendor's software (XOA).

    Attributes
    ----------
    version
        As ``experiment.xenium`` has it.
    string_ids
        Cells are named ``aaaabbcc-1`` and not numbered.
    polygon_sets
        ``cells.zarr.zip`` has ``polygon_sets``, boundaries have ``label_id``, cells ``nucleus_count`` (2.0 on); before, from
        1.3 on, it has ``seg_mask_value``.
    focus_folder
        Pictures are in ``morphology_focus/`` (2.0 on); before, ``morphology_mip.ome.tif`` and ``morphology_focus.ome.tif``.
    named_files
        Pictures are named after their stain (4.0 on).
    """

    version: str
    string_ids: bool
    polygon_sets: bool
    focus_folder: bool
    named_files: bool


VERSIONS = {
    v.version: v
    for v in (
        XeniumLayout(version="1.0.1", string_ids=False, polygon_sets=False, focus_folder=False, named_files=False),
        XeniumLayout(version="1.3.0", string_ids=True, polygon_sets=False, focus_folder=False, named_files=False),
        XeniumLayout(version="3.0.0", string_ids=True, polygon_sets=True, focus_folder=True, named_files=False),
        XeniumLayout(version="4.0.0", string_ids=True, polygon_sets=True, focus_folder=True, named_files=True),
    )
}
CONTROLS = (
    ("NegControlProbe_{:05d}", "Negative Control Probe", 6),
    ("NegControlCodeword_{:04d}", "Negative Control Codeword", 8),
)
"""Names, types and number of the controls."""
