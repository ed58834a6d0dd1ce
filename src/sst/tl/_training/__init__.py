"""What every training shares: the run, the cells, the measure."""

from __future__ import annotations

from ._cells import PairedCells, held_out_rows, log_statistics, paired_cells
from ._folder import TRAINING
from ._held_out import HeldOut, measured_rows, sample_grid
from ._held_out_edits import HeldOutEdits
from ._networks import judged
from ._run import Run

__all__ = [
    "HeldOut",
    "HeldOutEdits",
    "PairedCells",
    "Run",
    "TRAINING",
    "held_out_rows",
    "judged",
    "log_statistics",
    "measured_rows",
    "paired_cells",
    "sample_grid",
]
