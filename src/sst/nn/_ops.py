"""The operators of the networks: modulated convolution, convolution, FIR resampling. Feature maps are (B, H, W, C)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

if TYPE_CHECKING:
    import torch

FIR = (0.125, 0.375, 0.375, 0.125)  # [1, 3, 3, 1] / 8


def _fir(x: torch.Tensor, pad: tuple[int, int], gain: float = 1.0) -> torch.Tensor:
    """Filter (B, H, W, C) with the separable FIR filter after zero padding of each side."""
    c = x.shape[3]
    k = x.new_tensor(FIR) * gain**0.5
    y = F.pad(x.permute(0, 3, 1, 2), (pad[0], pad[1], pad[0], pad[1]))
    y = F.conv2d(y, k.view(1, 1, 4, 1).expand(c, 1, 4, 1), groups=c)
    y = F.conv2d(y, k.view(1, 1, 1, 4).expand(c, 1, 1, 4), groups=c)
    return y.permute(0, 2, 3, 1)


def upsample(x: torch.Tensor) -> torch.Tensor:
    """Twice the size, (B, H, W, C) -> (B, 2H, 2W, C): zeros between the pixels, then the FIR filter with gain 4."""
    b, h, w, c = x.shape
    y = x.new_zeros(b, h, 2, w, 2, c)
    y[:, :, 0, :, 0] = x
    return _fir(y.view(b, 2 * h, 2 * w, c), (2, 1), 4.0)


def downsample(x: torch.Tensor) -> torch.Tensor:
    """Half the size, (B, H, W, C) -> (B, H/2, W/2, C): the FIR filter at every second pixel."""
    return _fir(x, (1, 1))[:, ::2, ::2]


def conv3x3(x: torch.Tensor, weight: torch.Tensor, *, down: bool = False) -> torch.Tensor:
    """3x3 convolution of (B, H, W, I) with weight (O, 3, 3, I); ``down``: FIR filter first, then stride 2."""
    if down:
        x = _fir(x, (2, 2))
    y = F.conv2d(x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2), stride=2 if down else 1, padding=0 if down else 1)
    return y.permute(0, 2, 3, 1)


def modulated_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    style: torch.Tensor,
    taps: torch.Tensor,
    *,
    demodulate: bool = True,
    up: bool = False,
    eps: float = 1e-8,
) -> torch.Tensor:
    """Convolve each cell's maps (B, H, W, I) with its own kernel ``weight[o,y,x,i] style[b,i] taps[b,y,x]``.

    ``demodulate`` scales each output channel's kernel to unit length; ``up`` convolves at stride 1/2 and filters (gain 4).
    """
    b, h, w, i = x.shape
    o = weight.shape[0]
    kernel = weight[None] * style[:, None, None, None, :] * taps[:, None, :, :, None]  # (B, O, 3, 3, I)
    if demodulate:
        kernel = kernel * (kernel.square().sum(dim=(2, 3, 4), keepdim=True) + eps).rsqrt()
    maps = x.permute(0, 3, 1, 2).reshape(1, b * i, h, w)
    if not up:
        y = F.conv2d(maps, kernel.permute(0, 1, 4, 2, 3).reshape(b * o, i, 3, 3), padding=1, groups=b)
        return y.view(b, o, h, w).permute(0, 2, 3, 1)
    y = F.conv_transpose2d(maps, kernel.permute(0, 4, 1, 2, 3).reshape(b * i, o, 3, 3), stride=2, groups=b)
    return _fir(y.view(b, o, 2 * h + 1, 2 * w + 1).permute(0, 2, 3, 1), (1, 1), 4.0)
