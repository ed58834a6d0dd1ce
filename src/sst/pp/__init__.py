"""Read slides, cut paired cells, prepare them."""

from __future__ import annotations

from ._add_variables import add_variables
from ._crop_cells import crop_cells
from ._read_cosmx import read_cosmx
from ._read_xenium import read_xenium
from ._rescale_intensity import rescale_intensity
from ._train_test_split import train_test_split

__all__ = ["add_variables", "crop_cells", "read_cosmx", "read_xenium", "rescale_intensity", "train_test_split"]
