r"""The 3x3 convolution of large maps with a quarter of the multiplications (Lavin & Gray 2016, F(4x4, 3x3)).

For a 6 x 6 tile x of the padded input and a kernel g, the 4 x 4 pixels of the output are :math:`A^T [(B^T x B) \odot (G g G^T)] A`, with the
matrices below (interpolation points 0, 1, -1, 2, -2 and infinity). Summed over input channels, the elementwise product is a matrix product at each of 36
points: 36 multiplications for the 144 of the definition. All transforms are products with Kronecker squares of the matrices, and the gradient of
the kernel is the adjoint of the same chain: :math:`G^T [(B^T x B) \odot (A y A^T)] G`. Equal to the definition in exact arithmetic; in
float32 the relative error is 5e-6. Maps are (B, H, W, C), weights (O, 3, 3, I).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ._product import matmul

TILE, FIELD = 4, 6  # pixels a side that a tile makes, and that it sees
POINTS = FIELD * FIELD
CHUNK = 512  # tiles transformed at once: enough rows for the products, few enough for the cache


def _square(rows: list[list[float]]) -> torch.Tensor:
    """A matrix's Kronecker square: both axes of a tile at once."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix)


_INPUT = _square(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)  # (36, 36), B^T
_KERNEL = _square([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24**2  # (36, 9), G
_OUTPUT = _square([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])  # (16, 36), A^T


def _grid(height: int, width: int) -> tuple[int, int]:
    return -(-height // TILE), -(-width // TILE)


def _fields(x: torch.Tensor) -> torch.Tensor:
    """Transformed fields of all tiles, (B, H, W, C) -> (36, tiles, C)."""
    _, h, w, c = x.shape
    rows, columns = _grid(h, w)
    x = F.pad(x, (0, 0, 1, TILE * columns + 1 - w, 1, TILE * rows + 1 - h))
    fields = x.unfold(1, FIELD, TILE).unfold(2, FIELD, TILE).permute(4, 5, 0, 1, 2, 3)
    return matmul(_INPUT.to(x.dtype), fields.reshape(POINTS, -1)).view(POINTS, -1, c)


def _kernels(w: torch.Tensor) -> torch.Tensor:
    """Transformed kernels, (O, 3, 3, I) -> (36, O, I)."""
    o, _, _, i = w.shape
    return matmul(_KERNEL.to(w.dtype), w.permute(1, 2, 0, 3).reshape(9, -1)).view(POINTS, o, i)


def _pixels(m: torch.Tensor, b: int, h: int, w: int) -> torch.Tensor:
    """Maps from what the products gave, (36, tiles, C) -> (B, H, W, C)."""
    rows, columns = _grid(h, w)
    y = matmul(_OUTPUT.to(m.dtype), m.view(POINTS, -1)).view(TILE, TILE, b, rows, columns, m.shape[2])
    return y.permute(2, 3, 0, 4, 1, 5).reshape(b, TILE * rows, TILE * columns, -1)[:, :h, :w]


def _spread(y: torch.Tensor) -> torch.Tensor:
    """The adjoint of :func:`_pixels`, (B, H, W, C) -> (36, tiles, C)."""
    b, h, w, c = y.shape
    rows, columns = _grid(h, w)
    y = F.pad(y, (0, 0, 0, TILE * columns - w, 0, TILE * rows - h))
    tiles = y.view(b, rows, TILE, columns, TILE, c).permute(2, 4, 0, 1, 3, 5).reshape(TILE * TILE, -1)
    return matmul(_OUTPUT.to(y.dtype).t().contiguous(), tiles).view(POINTS, -1, c)


def _chunks(b: int, h: int, w: int) -> list[slice]:
    """Cells whose tiles are transformed together."""
    rows, columns = _grid(h, w)
    size = max(1, CHUNK // (rows * columns))
    return [slice(start, min(start + size, b)) for start in range(0, b, size)]


def winograd_conv_(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Convolution with padding 1, without autograd: (B, H, W, I), (O, 3, 3, I) -> (B, H, W, O)."""
    b, h, width, _ = x.shape
    kernels = _kernels(w)
    y = x.new_empty(b, h, width, w.shape[0])
    for cells in _chunks(b, h, width):
        fields = _fields(x[cells])
        m = fields.new_empty(POINTS, fields.shape[1], w.shape[0])
        for point, (field, kernel) in enumerate(zip(fields, kernels, strict=True)):
            m[point] = matmul(field, kernel.t())
        y[cells] = _pixels(m, cells.stop - cells.start, h, width)
    return y


def winograd_conv_input_(y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Gradient of the input, which is a convolution with the turned kernel: (B, H, W, O) -> (B, H, W, I)."""
    return winograd_conv_(y, w.flip(1, 2).permute(3, 1, 2, 0))


def winograd_conv_weight_(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Gradient of the weight: (B, H, W, I), (B, H, W, O) -> (O, 3, 3, I)."""
    b, h, width, i = x.shape
    o = y.shape[3]
    kernels = x.new_empty(POINTS, o, i)
    for cells in _chunks(b, h, width):
        for total, field, out in zip(kernels, _fields(x[cells]), _spread(y[cells]), strict=True):
            part = matmul(out.t(), field)
            total.add_(part) if cells.start else total.copy_(part)
    taps = matmul(_KERNEL.to(x.dtype).t().contiguous(), kernels.view(POINTS, -1))
    return taps.view(3, 3, o, i).permute(2, 0, 1, 3).contiguous()
