"""What every training shares: the cells, the folder, the processes."""

from __future__ import annotations

from ._cells import PairedCells, counts_of, log_statistics, paired_cells
from ._folder import TRAINING, claim, keep, model_folder, override
from ._gan_inputs import GanInputs, gan_inputs
from ._held_out import HeldOut, sample_grid
from ._processes import check_processes, train_in_processes

__all__ = [
    "GanInputs",
    "HeldOut",
    "PairedCells",
    "TRAINING",
    "check_processes",
    "claim",
    "counts_of",
    "gan_inputs",
    "keep",
    "log_statistics",
    "model_folder",
    "override",
    "paired_cells",
    "sample_grid",
    "train_in_processes",
]
