"""Which form an operator takes, by shape, precision and device: the one place that chooses.

Each rule was measured on one core of a CPU (AMD Zen 5); ``benchmarks/RESULTS_training.md`` has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from ._taps import Geometry

Form = Literal["columns", "up", "cell kernels"]
Routine = Literal["columns", "winograd", "library"]


def choose_form(height: int, width: int, inputs: int, outputs: int, *, up: bool) -> Form:
    """Form of a modulated convolution of maps of this size.

    Columns cost 9 H W I values written a cell, cell kernels 9 O I: columns below H W = O. One cell's maps of less than 20480 values
    are too small for PyTorch to hand them to oneDNN.
    """
    if up:
        return "up"
    return "columns" if height * width <= outputs or height * width * inputs <= 20480 else "cell kernels"


def keep_columns(cells: int, height: int, width: int, outputs: int) -> bool:
    """Whether an upsampling layer keeps the columns of its product for the gradient: below 512 MiB of float32.

    Without them a first gradient costs the same, a path length a tenth more.
    """
    return cells * height * width * 9 * outputs < 2**27


def choose_routine(
    x: torch.Tensor, at: Geometry, inputs: int, outputs: int, cells: int, *, weight_gradient: bool
) -> Routine:
    """Routine of a convolution, of its input's gradient or of its weight's, for ``cells`` cells that share a kernel.

    *columns*: small maps, and weight gradients at stride 2, where CPU convolutions are several times slower than a product.
    *winograd*: on a CPU in float32 (or float64), 128 channels and 64 tiles of 4 x 4 pixels or more; with fewer, moving the tiles costs what the smaller
    products save. Half precisions have too few digits for it, and accelerators have units that are faster still.
    *library*: what PyTorch calls, everywhere else.
    """
    h, w = at.out
    wide = min(inputs, outputs)
    single = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    if single and at.stride == at.pad == 1 and wide >= 128 and cells * h * w >= 64 * 16:
        return "winograd"
    if h * w <= 16 or (weight_gradient and wide >= 16 and (at.stride == 2 or h * w < outputs)):
        return "columns"
    return "library"
