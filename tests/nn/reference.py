"""The plain formulation, slow and obvious, that the fast operators must equal."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def fir(x: torch.Tensor, pad: tuple[int, int], gain: float = 1.0) -> torch.Tensor:
    """Pad (B, C, H, W) with zeros and convolve each map with the 4 x 4 filter [1,3,3,1] (x) [1,3,3,1] / 64 x gain."""
    k = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device)
    kernel = torch.outer(k, k) / 64 * gain
    c = x.shape[1]
    return F.conv2d(F.pad(x, (pad[0], pad[1], pad[0], pad[1])), kernel.expand(c, 1, 4, 4), groups=c)


def upsample(x: torch.Tensor) -> torch.Tensor:
    """Zeros between the pixels of (B, C, H, W), then the filter with gain 4."""
    b, c, h, w = x.shape
    y = x.new_zeros(b, c, 2 * h, 2 * w)
    y[:, :, ::2, ::2] = x
    return fir(y, (2, 1), 4.0)


def downsample(x: torch.Tensor) -> torch.Tensor:
    """The filter at every second pixel of (B, C, H, W)."""
    return fir(x, (1, 1))[:, :, ::2, ::2]


def conv3x3(x: torch.Tensor, weight: torch.Tensor, *, down: bool = False) -> torch.Tensor:
    """Convolve (B, I, H, W) with (O, 3, 3, I); ``down``: after the filter, at stride 2."""
    weight = weight.permute(0, 3, 1, 2)
    if down:
        return F.conv2d(fir(x, (2, 2)), weight, stride=2)
    return F.conv2d(x, weight, padding=1)


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
    """W'[b,o,i,y,x] = weight[o,y,x,i] style[b,i] taps[b,y,x], demodulated, in one convolution with a group a cell."""
    b, i, h, w = x.shape
    o = weight.shape[0]
    kernel = weight.permute(0, 3, 1, 2)[None] * style[:, None, :, None, None] * taps[:, None, None]
    if demodulate:
        kernel = kernel * (kernel.square().sum(dim=(2, 3, 4), keepdim=True) + eps).rsqrt()
    if not up:
        y = F.conv2d(x.reshape(1, b * i, h, w), kernel.reshape(b * o, i, 3, 3), padding=1, groups=b)
        return y.view(b, o, h, w)
    kernel = kernel.transpose(1, 2).reshape(b * i, o, 3, 3)
    y = F.conv_transpose2d(x.reshape(1, b * i, h, w), kernel, stride=2, groups=b)
    return fir(y.view(b, o, 2 * h + 1, 2 * w + 1), (1, 1), 4.0)
