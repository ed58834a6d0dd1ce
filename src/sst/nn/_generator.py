"""The generator: StyleGAN2 whose kernels, and styles, are driven by genes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from sst._validate import check_choice
from sst.nn.ops import activate, double_planes, modulated_conv, to_image

from ._layers import GAIN, EqualLinear, EqualMLP, ExpressionTransform, channels_at, check_resolution, pixel_norm
from ._precision import ComputeDtype, compute_dtype, full_precision

Noise = Literal["random", "none"] | torch.Tensor | Sequence[torch.Tensor]


class _StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, up: bool, margin: int) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, in_channels, bias_init=1.0)
        shape = (3, 3, out_channels, in_channels) if up else (out_channels, 3, 3, in_channels)
        self.weight = nn.Parameter(torch.randn(shape))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = 1 / math.sqrt(9 * in_channels)
        self.up, self.margin = up, margin

    def forward(self, x: torch.Tensor, w: torch.Tensor, taps: torch.Tensor, noise: torch.Tensor | None) -> torch.Tensor:
        style = self.affine(w) * self.scale
        y = modulated_conv(_widen(x, self.margin), self.weight, style, taps, up=self.up, gain=GAIN)
        y = _narrow(y, self.margin << self.up, axis=1)
        return activate(y, self.bias * GAIN, None if noise is None else noise * (self.noise_strength * GAIN))


class _ToImage(nn.Module):
    """Modulated 3x3 convolution to the image's channels, without demodulation."""

    def __init__(self, in_channels: int, img_channels: int, w_dim: int, *, margin: int) -> None:
        super().__init__()
        self.affine = EqualLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, 3, img_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.scale = 1 / math.sqrt(9 * in_channels)
        self.margin = margin

    def forward(self, x: torch.Tensor, w: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
        style = self.affine(w) * self.scale
        drawn = to_image(_widen(x, self.margin), self.weight, style, taps)
        return _narrow(drawn, self.margin, axis=2) + self.bias[:, None, None]


def _widen(x: torch.Tensor, margin: int) -> torch.Tensor:
    """Repeat the outermost pixels of maps (B, H, W, C) so often on every side."""
    if not margin:
        return x
    return F.pad(x.permute(0, 3, 1, 2), (margin,) * 4, mode="replicate").permute(0, 2, 3, 1).contiguous()


def _narrow(x: torch.Tensor, margin: int, *, axis: int) -> torch.Tensor:
    """Take so many pixels off on every side; ``axis`` is the maps' height, the next one their width."""
    if not margin:
        return x
    return x.narrow(axis, margin, x.shape[axis] - 2 * margin).narrow(axis + 1, margin, x.shape[axis + 1] - 2 * margin)


class Generator(nn.Module):
    r"""Image of a cell from a latent vector and the cell's expression.

    Parameters
    ----------
    n_genes
        Number of genes p.
    img_channels
        Number of image channels c.
    resolution
        Side R of the image in pixels, a power of two in 8..512.
    z_dim, w_dim
        Widths of the latent vector and of the styles.
    channel_base, channel_max
        ``min(channel_base / r, channel_max)`` feature maps at r px.
    mapping_layers
        Layers of the mapping network z -> w.
    gene_layers, gene_width
        Layers and width of the gene network p -> one 3x3 kernel per style input.
    gene_inputs
        Where the genes act: ``"kernel"`` (the paper: a 3x3 kernel per style input multiplies the weights over space) and ``"style"``
        (a small network of the genes is added to w).
    kernel_offset
        The kernel is ``kernel_offset + network(x)``. 1 starts at identity (the network's last layer starts at zero), 0 is the paper's.
    input_transform, negatives
        See :class:`ExpressionTransform`.
    lr_multiplier
        Learning-rate multiplier of the mapping and gene networks.
    style_lr_multiplier
        The same for the network from genes to w. Above 1 it sorts causes from followers sooner: weights of genes that do nothing
        have less far to go.
    border
        What convolutions find beyond a map's edge: ``"zero"`` (StyleGAN2), which draws a frame around the image until the other layers learn to take
        it off, or ``"replicate"``, the outermost pixels once more.

    Notes
    -----
    For cell b, style input l with style ``s = affine(w_l)`` and kernel ``d_l`` (Wu & Koelzer, 2024)

    .. math:: W'_{boiyx} = W_{oiyx}\, s_{bi}\, d_{byx} / \sqrt{9 I},

    followed by StyleGAN2's demodulation over (i, y, x) except in the to-image layers. There are ``2 log2(R) - 2`` style inputs: one a
    convolution and one for the last to-image layer; an earlier to-image layer shares that of the next convolution.
    """

    def __init__(
        self,
        n_genes: int,
        *,
        img_channels: int,
        resolution: int = 128,
        z_dim: int = 512,
        w_dim: int = 512,
        channel_base: int = 32768,
        channel_max: int = 512,
        mapping_layers: int = 8,
        gene_layers: int = 8,
        gene_width: int = 256,
        gene_inputs: Sequence[str] = ("kernel", "style"),
        kernel_offset: float = 1.0,
        input_transform: Literal["log1p", "counts"] = "log1p",
        negatives: Literal["zero", "keep"] | None = None,
        lr_multiplier: float = 0.01,
        style_lr_multiplier: float = 1.0,
        border: Literal["zero", "replicate"] = "zero",
    ) -> None:
        super().__init__()
        levels = check_resolution(resolution) - 1  # 4 px, 8 px, ...
        for name in gene_inputs:
            check_choice("gene_inputs", name, ("kernel", "style"))
        if not gene_inputs:
            msg = "gene_inputs is empty: the genes would do nothing. Possible: 'kernel', 'style', or both."
            raise ValueError(msg)
        self.n_genes, self.img_channels, self.resolution = n_genes, img_channels, resolution
        self.z_dim, self.w_dim = z_dim, w_dim
        self.gene_inputs = tuple(gene_inputs)
        self.kernel_offset = kernel_offset
        self.num_styles = 2 * levels
        self.compute_dtype: ComputeDtype = "auto"

        self.transform = ExpressionTransform(n_genes, input_transform, negatives)
        self.mapping_network = EqualMLP(
            [z_dim] + [w_dim] * mapping_layers, lr_multiplier=lr_multiplier, activate_last=True
        )
        if "kernel" in self.gene_inputs:
            self.kernel_network = EqualMLP(
                [n_genes] + [gene_width] * (gene_layers - 1) + [9 * self.num_styles],
                lr_multiplier=lr_multiplier,
                zero_init_last=kernel_offset != 0,
            )
        if "style" in self.gene_inputs:
            self.style_network = EqualMLP([n_genes, gene_width, gene_width, w_dim], lr_multiplier=style_lr_multiplier)

        widths = [channels_at(4 * 2**n, channel_base, channel_max) for n in range(levels)]
        self.const = nn.Parameter(torch.randn(4, 4, widths[0]))
        self.margin = margin = int(check_choice("border", border, ("zero", "replicate")) == "replicate")
        self.convs = nn.ModuleList([_StyledConv(widths[0], widths[0], w_dim, up=False, margin=margin)])
        self.to_images = nn.ModuleList([_ToImage(widths[0], img_channels, w_dim, margin=margin)])
        for before, width in zip(widths[:-1], widths[1:], strict=True):
            self.convs.append(_StyledConv(before, width, w_dim, up=True, margin=margin))
            self.convs.append(_StyledConv(width, width, w_dim, up=False, margin=margin))
            self.to_images.append(_ToImage(width, img_channels, w_dim, margin=margin))

    @property
    def noise_shapes(self) -> list[tuple[int, int]]:
        """Height and width of the noise of each convolution."""
        return [(4 * 2 ** ((n + 1) // 2),) * 2 for n in range(len(self.convs))]

    @property
    def widths(self) -> list[int]:
        """Feature maps of each convolution."""
        return [int(conv.bias.shape[0]) for conv in self.convs]  # type: ignore[index]

    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set per-gene mean and standard deviation of log(1 + counts), each of shape (p,)."""
        self.transform.set_statistics(mean, std)

    def set_range(self, low: torch.Tensor, high: torch.Tensor) -> None:
        """Set the range of counts seen in training, (p,) each: with log1p, an edit that leaves it is drawn at its end."""
        self.transform.set_range(low, high)

    def mapping(self, z: torch.Tensor) -> torch.Tensor:
        """Map latent vectors (B, z_dim) to w (B, w_dim)."""
        with full_precision(self.const.device):
            return self.mapping_network(pixel_norm(z.to(self.const.dtype)))

    def styles(self, w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """W (B, w_dim) or (B, L, w_dim), with the genes' share added, for each style input: (B, L, w_dim)."""
        ws = w if w.ndim == 3 else w[:, None].expand(-1, self.num_styles, -1)
        if "style" not in self.gene_inputs:
            return ws
        with full_precision(self.const.device):
            return ws + self.style_network(self.transform(x))[:, None]

    def kernels(self, x: torch.Tensor) -> torch.Tensor:
        """Kernels of the style inputs, (B, L, 3, 3), from counts (B, p)."""
        if "kernel" not in self.gene_inputs:
            return self.const.new_ones(x.shape[0], self.num_styles, 3, 3)
        with full_precision(self.const.device):
            taps = self.kernel_network(self.transform(x)) + self.kernel_offset
        return taps.view(-1, self.num_styles, 3, 3)

    def synthesis(
        self, ws: torch.Tensor, taps: torch.Tensor, *, noise: Noise = "random", maps: Sequence[torch.Tensor] = ()
    ) -> torch.Tensor:
        """Draw images (B, c, R, R) from styles (B, L, w_dim) and kernels (B, L, 3, 3).

        ``maps``, one a convolution from the first on, (B, r, r, 1 or its channels), are added to the feature maps.
        """
        dtype = compute_dtype(self.compute_dtype, self.const)
        with full_precision(self.const.device):
            noises = self._noises(noise, ws)
            return self._draw(ws.to(self.const.dtype), taps.to(self.const.dtype), noises, maps, dtype)

    def _draw(
        self,
        ws: torch.Tensor,
        taps: torch.Tensor,
        noises: list[torch.Tensor | None],
        maps: Sequence[torch.Tensor],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        x = self.const.to(dtype).expand(ws.shape[0], -1, -1, -1)
        image = None
        for n, conv in enumerate(self.convs):
            x = conv(x, ws[:, n], taps[:, n], noises[n])
            if n < len(maps):
                x = x + maps[n].to(dtype)
            if n % 2 == 0:
                drawn = self.to_images[n // 2](x, ws[:, n + 1], taps[:, n + 1])
                image = drawn if image is None else self._doubled(image) + drawn
        if image is None:  # pragma: no cover - there is always a first layer
            msg = "the generator has no layers."
            raise RuntimeError(msg)
        return image

    def _doubled(self, image: torch.Tensor) -> torch.Tensor:
        """Planes (B, c, H, W) at twice the size, their border as the convolutions'."""
        margin = self.margin
        wide = F.pad(image, (margin,) * 4, mode="replicate") if margin else image
        return _narrow(double_planes(wide), 2 * margin, axis=2)

    def forward(self, z: torch.Tensor, x: torch.Tensor, *, noise: Noise = "random") -> torch.Tensor:
        """Draw images.

        Parameters
        ----------
        z
            Latent vectors (B, z_dim).
        x
            Counts (B, p).
        noise
            ``"random"``; ``"none"``; an integer tensor (B,) of one seed a cell, which then alone sets its noise; or one tensor
            (B or 1, r, r) a convolution.

        Returns
        -------
        Images (B, c, R, R), about within [-1, 1] once trained.
        """
        return self.synthesis(self.styles(self.mapping(z), x), self.kernels(x), noise=noise)

    def _noises(self, noise: Noise, ws: torch.Tensor) -> list[torch.Tensor | None]:
        """The noise of each convolution, (B, r, r, 1) or None."""
        b = ws.shape[0]
        if isinstance(noise, str):
            check_choice("noise", noise, ("random", "none"))
            if noise == "none":
                return [None] * len(self.convs)
            return [torch.randn(b, *s, 1, device=ws.device, dtype=self.const.dtype) for s in self.noise_shapes]
        if isinstance(noise, torch.Tensor):
            if noise.shape != (b,) or noise.is_floating_point():
                msg = f"noise of {noise.dtype} and shape {tuple(noise.shape)}: expected {b} integer seeds, one a cell."
                raise ValueError(msg)
            return [n.to(ws.device, self.const.dtype) for n in _seeded_noise(noise.tolist(), self.noise_shapes)]
        if len(noise) != len(self.convs):
            msg = f"noise has {len(noise)} tensors; the generator has {len(self.convs)} convolutions."
            raise ValueError(msg)
        return [
            n.to(ws.device, self.const.dtype).reshape(-1, *s, 1) for n, s in zip(noise, self.noise_shapes, strict=True)
        ]


def _seeded_noise(seeds: Sequence[int], shapes: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    sizes = [h * w for h, w in shapes]
    draws = [torch.randn(sum(sizes), generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    parts = torch.stack(draws).split(sizes, dim=1)
    return [part.reshape(-1, *shape, 1) for part, shape in zip(parts, shapes, strict=True)]
