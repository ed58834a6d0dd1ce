"""The editor: a real cell, its expression and another one in, the same cell under the other expression out."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from sst._validate import check_choice, check_range
from sst.nn.ops import activate, conv3x3

from ._layers import SLOPE, ExpressionTransform
from ._precision import ComputeDtype, compute_dtype, full_precision

SIZES = (16, 32, 64, 128, 256)
GROUPS = 8  # of channels, that are normalised together
GAIN_LIMIT = 2.0  # stains change by at most e^2
START = 0.01  # standard deviation of the last kernels: an untrained editor changes little


class _Conv(nn.Module):
    """3x3 convolution of maps (B, H, W, C); ``down``: to half the size."""

    def __init__(self, in_channels: int, out_channels: int, *, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(9 * in_channels)
        self.down = down
        self.weight = nn.Parameter(torch.empty(out_channels, 3, 3, in_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, and with a bias leaky ReLU."""
        y = conv3x3(x, self.weight, down=self.down)
        return y if self.bias is None else activate(y, self.bias)


class _Modulation(nn.Module):
    """Group norm without parameters, then a scale and a shift a channel that a code sets; leaky ReLU."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.groups = math.gcd(channels, GROUPS)
        self.affine = nn.Linear(code_dim, 2 * channels)
        nn.init.normal_(self.affine.weight, std=0.02)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Maps (B, H, W, C), code (B, code_dim)."""
        scale, shift = self.affine(code).chunk(2, dim=1)
        variance, mean = torch.var_mean(x.to(code.dtype), dim=(1, 2), correction=0)  # of channels, B x C
        b, c = mean.shape
        means = mean.view(b, self.groups, -1)
        middle = means.mean(dim=2, keepdim=True)
        spread = variance.view_as(means).mean(dim=2, keepdim=True) + (means - middle).square().mean(dim=2, keepdim=True)
        factor = (1 + scale) * (spread + 1e-5).rsqrt().expand_as(means).reshape(b, c)
        shift = shift - middle.expand_as(means).reshape(b, c) * factor
        y = torch.addcmul(shift.to(x.dtype)[:, None, None], x, factor.to(x.dtype)[:, None, None])
        return F.leaky_relu(y, SLOPE)


class _Block(nn.Module):
    """Residual block of two modulated convolutions."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.modulations = nn.ModuleList(_Modulation(channels, code_dim) for _ in range(2))
        self.convs = nn.ModuleList(_Conv(channels, channels, bias=False) for _ in range(2))

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        y = x
        for modulate, conv in zip(self.modulations, self.convs, strict=True):
            y = conv(modulate(y, code))
        return torch.add(x, y, alpha=0.5)


class _Head(nn.Module):
    """What an edit does at each pixel: linear in ``u`` and without bias, so that no edit does nothing."""

    def __init__(self, channels: int, outputs: int, code_dim: int, start: float = START) -> None:
        super().__init__()
        self.gate = nn.Linear(code_dim, channels, bias=False)
        self.weight = nn.Parameter(torch.randn(outputs, 3, 3, channels) * start)

    def forward(self, x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Maps (B, H, W, C) and edit (B, code_dim) -> (B, outputs, H, W) in the precision of ``u``."""
        y = conv3x3(x * self.gate(u).to(x.dtype)[:, None, None], self.weight)
        return y.permute(0, 3, 1, 2).to(u.dtype)


class CellEditor(nn.Module):
    r"""Turns this cell: its real crop under another expression.

    Parameters
    ----------
    n_genes
        Number of genes p.
    img_channels
        Image channels.
    resolution
        Side of the images in pixels: 16, 32, 64, 128 or 256.
    width, width_max
        Feature maps at full size; doubled at each halving, up to the largest.
    code_dim
        Width of the code m of a pair of expressions.
    blocks
        Residual blocks at the coarsest size (one at every other).
    flow_size
        Side of the coarsest maps, at which the flow is made.
    input_transform
        See :class:`ExpressionTransform`.

    Notes
    -----
    A small network codes the cell's expression and the change asked for, m(g, g'). A U-Net of the image, whose blocks m scales and shifts, has
    three heads, each *linear and without bias* in :math:`u = m(g, g') - m(g, g)`: a coarse flow (enlarged bicubically), the log of a gain at each
    pixel (with one for the whole channel), a residual. In intensities from 0 to 1

    .. math:: y = \mathrm{warp}(x, \mathrm{flow}) \cdot e^{\mathrm{gain}} + \mathrm{residual},

    so that outlines move, stains are multiplied, and the rest is added. With g' = g the image comes out as it went in, bit for bit.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        img_channels: int,
        resolution: int = 128,
        width: int = 16,
        width_max: int = 64,
        code_dim: int = 64,
        blocks: int = 2,
        flow_size: int = 8,
        input_transform: str = "log1p",
    ) -> None:
        super().__init__()
        check_choice("resolution", resolution, SIZES)
        check_choice("flow_size", flow_size, [s for s in (4, 8, 16, 32) if s <= resolution // 2])
        for name, value in (("width", width), ("width_max", width_max), ("code_dim", code_dim), ("blocks", blocks)):
            check_range(name, value, low=1)
        self.n_genes, self.img_channels, self.resolution = n_genes, img_channels, resolution
        self.compute_dtype: ComputeDtype = "auto"
        self.transform = ExpressionTransform(n_genes, input_transform)  # type: ignore[arg-type]
        self.network = nn.Sequential(
            nn.Linear(2 * n_genes, code_dim), nn.LeakyReLU(SLOPE), nn.Linear(code_dim, code_dim), nn.LeakyReLU(SLOPE)
        )
        halvings = int(math.log2(resolution // flow_size))
        widths = [min(width * 2**level, max(width, width_max)) for level in range(halvings + 1)]  # fine to coarse
        self.from_image = _Conv(img_channels, widths[0])
        self.down = nn.ModuleList(_Conv(i, o, down=True) for i, o in zip(widths[:-1], widths[1:], strict=True))
        self.bottom = nn.ModuleList(_Block(widths[-1], code_dim) for _ in range(blocks))
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]  # coarse to fine
        self.up = nn.ModuleList(_Conv(coarse + fine, fine) for coarse, fine in pairs)
        self.blocks = nn.ModuleList(_Block(fine, code_dim) for _, fine in pairs)
        self.flow = _Head(widths[-1], 2, code_dim)
        self.gain = _Head(widths[0], img_channels, code_dim)
        self.channel_gain = nn.Linear(code_dim, img_channels, bias=False)
        nn.init.normal_(self.channel_gain.weight, std=START)
        self.residual = _Head(widths[0], img_channels, code_dim, start=1 / math.sqrt(27 * widths[0]))

    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set per-gene mean and standard deviation of log(1 + counts), (p,) each."""
        self.transform.set_statistics(mean, std)

    def set_range(self, low: torch.Tensor, high: torch.Tensor) -> None:
        """Set the range of counts seen in training, (p,) each; see :meth:`ExpressionTransform.set_range`."""
        self.transform.set_range(low, high)

    def codes(self, own: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """m(g, g'), u = m(g, g') - m(g, g), (B, code_dim) each, and whether the network sees any change, (B,)."""
        own, target = self.transform(own), self.transform(target)
        change = target - own
        code = self.network(torch.cat([own, change], dim=1))
        still = self.network(torch.cat([own, torch.zeros_like(change)], dim=1))
        return code, code - still, (change != 0).any(dim=1)

    def forward(self, images: torch.Tensor, own: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Edit cells.

        Parameters
        ----------
        images
            Real crops (B, c, R, R) in [-1, 1].
        own, target
            Counts (B, p) of the cells, and those they are to have.

        Returns
        -------
        Images (B, c, R, R), about within [-1, 1].
        """
        expected = (self.img_channels, self.resolution, self.resolution)
        if images.ndim != 4 or images.shape[1:] != expected:
            msg = f"images have shape {tuple(images.shape)}; expected (cells, {', '.join(map(str, expected))})."
            raise ValueError(msg)
        with full_precision(images.device):
            code, u, changed = self.codes(own, target)
            images = images.to(code.dtype)
            flow, gain, residual = self.effects(images, code, u)
            moved = warp(images, flow)
            edited = (moved + 1) * gain.clamp(-GAIN_LIMIT, GAIN_LIMIT).exp() - 1 + residual
            return torch.where(changed[:, None, None, None], edited, images)

    def effects(
        self, images: torch.Tensor, code: torch.Tensor, u: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Flow (B, 2, R, R), log gain and residual (B, c, R, R), each linear in ``u``."""
        x = images.permute(0, 2, 3, 1).to(compute_dtype(self.compute_dtype, self.from_image.weight))
        seen = [self.from_image(x)]
        for conv in self.down:
            seen.append(conv(seen[-1]))
        x = seen.pop()
        for block in self.bottom:
            x = block(x, code)
        flow = F.interpolate(self.flow(x, u), size=images.shape[2:], mode="bicubic", align_corners=False)
        for conv, block in zip(self.up, self.blocks, strict=True):
            x = block(conv(torch.cat([_twice(x), seen.pop()], dim=3)), code)
        gain = self.gain(x, u) + self.channel_gain(u)[:, :, None, None]
        return flow, gain, self.residual(x, u)


def _twice(x: torch.Tensor) -> torch.Tensor:
    """Each pixel of (B, H, W, C) as four."""
    b, h, w, c = x.shape
    return x[:, :, None, :, None].expand(b, h, 2, w, 2, c).reshape(b, 2 * h, 2 * w, c)


def warp(images: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Read images (B, c, h, w) at places moved by ``flow`` (B, 2, h, w; right and down, 2 is the whole side), bilinearly.

    Beyond the edge the image is reflected.
    """
    h, w = images.shape[2:]
    y, x = (
        (torch.arange(n, device=images.device, dtype=images.dtype) * 2 + 1) / n - 1 for n in (h, w)
    )  # pixels' centres
    still = torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1)
    return F.grid_sample(
        images, still + flow.permute(0, 2, 3, 1), mode="bilinear", padding_mode="reflection", align_corners=False
    )
