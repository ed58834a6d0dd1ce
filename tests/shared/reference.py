"""The plain formulation, slow and obvious, that the fast operators must equal."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from sst.nn import leaky_relu

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    return conv_nchw(x, weight.permute(0, 3, 1, 2), down=down)


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


def activate(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Bias and leaky ReLU with gain sqrt 2 on (B, C, H, W)."""
    return F.leaky_relu(x + bias[:, None, None].to(x.dtype), 0.2) * 2**0.5


def minibatch_stddev(x: torch.Tensor, group: int) -> torch.Tensor:
    """Append the mean standard deviation over groups of cells (b mod number of groups) as one more map."""
    b, c, h, w = x.shape
    size = max(g for g in range(1, min(group, b) + 1) if b % g == 0)
    y = x.float() if x.dtype != torch.float64 else x
    y = y.reshape(size, -1, c, h, w)
    y = y - y.mean(dim=0, keepdim=True)
    y = (y.square().mean(dim=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    return torch.cat([x, y.repeat(size)[:, None, None, None].expand(b, 1, h, w).to(x.dtype)], dim=1)


class _Plain(torch.nn.Module):
    """Keeps the 3x3 weights of a network in (O, I, 3, 3), everything else as it is."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.weights = torch.nn.ParameterDict()
        for name, module in self.network.named_modules():
            weight = getattr(module, "weight", None)
            if weight is not None and weight.ndim == 4:
                order = (2, 3, 0, 1) if weight.shape[0] == 3 == weight.shape[1] else (0, 3, 1, 2)
                module.order = (2, 3, 0, 1) if order[0] == 2 else (0, 2, 3, 1)
                self.weights[name.replace(".", "_")] = torch.nn.Parameter(weight.detach().permute(order).contiguous())
                module.weight = None
                module.key = name.replace(".", "_")

    def gradients(self) -> dict[str, torch.Tensor]:
        """Gradients by the fast network's names, in its layout."""
        out = {n: p.grad for n, p in self.network.named_parameters()}
        for name, module in self.network.named_modules():
            if hasattr(module, "key"):
                grad = self.weights[module.key].grad
                out[f"{name}.weight"] = None if grad is None else grad.permute(module.order)
        return out


def _modulate(x: torch.Tensor, weight: torch.Tensor, style: torch.Tensor, taps: torch.Tensor, **kwargs) -> torch.Tensor:
    return modulated_conv(x, weight.permute(0, 2, 3, 1), style, taps, **kwargs)


class PlainGenerator(_Plain):
    """``Generator`` in PyTorch's own operators: per-sample weights, one grouped convolution a layer, FIR by padded convolution."""

    def forward(self, z: torch.Tensor, x: torch.Tensor, *, noise: Sequence[torch.Tensor] | str = "random"):
        g = self.network
        return self.synthesis(g.styles(g.mapping(z), x), g.kernels(x), noise=noise)

    def synthesis(self, ws: torch.Tensor, taps: torch.Tensor, *, noise: Sequence[torch.Tensor] | str = "random"):
        g, b = self.network, len(ws)
        if noise == "random":
            noise = [torch.randn(b, *s, device=ws.device, dtype=ws.dtype) for s in g.noise_shapes]
        x = g.const.permute(2, 0, 1).expand(b, -1, -1, -1)
        image = None
        for n in range(len(g.convs)):
            x = self.layer(n, x, ws[:, n], taps[:, n], None if noise == "none" else noise[n])
            if n % 2 == 0:
                y = self.to_image(n // 2, x, ws[:, n + 1], taps[:, n + 1])
                image = y if image is None else upsample(image) + y
        return image

    def layer(self, n: int, x: torch.Tensor, w: torch.Tensor, taps: torch.Tensor, noise: torch.Tensor | None):
        layer = self.network.convs[n]
        style = layer.affine(w) / (9 * x.shape[1]) ** 0.5
        x = _modulate(x, self.weights[layer.key], style, taps, up=layer.up)
        if noise is not None:
            x = x + noise.reshape(-1, 1, *x.shape[2:]).to(x.dtype) * layer.noise_strength.to(x.dtype)
        return activate(x, layer.bias)

    def to_image(self, n: int, x: torch.Tensor, w: torch.Tensor, taps: torch.Tensor):
        layer = self.network.to_images[n]
        style = layer.affine(w) / (9 * x.shape[1]) ** 0.5
        y = _modulate(x, self.weights[layer.key], style, taps, demodulate=False)
        return y.to(layer.bias.dtype) + layer.bias[:, None, None]


class PlainDiscriminator(_Plain):
    """``Discriminator`` in PyTorch's own operators, (B, C, H, W) throughout."""

    def image_features(self, img: torch.Tensor) -> torch.Tensor:
        d = self.network
        first = d.from_image
        x = activate(F.conv2d(img, (first.weight * first.weight_gain)[:, :, None, None]), first.bias)
        for block in d.blocks:
            skip = F.conv2d(downsample(x), (block.skip / block.skip.shape[1] ** 0.5)[:, :, None, None])
            y = activate(conv_nchw(x, self.weights[block.conv0.key] * block.conv0.scale), block.conv0.bias)
            y = activate(conv_nchw(y, self.weights[block.conv1.key] * block.conv1.scale, down=True), block.conv1.bias)
            x = (y + skip) * 0.5**0.5
        x = minibatch_stddev(x, d.mbstd_group)
        x = activate(conv_nchw(x, self.weights[d.last_conv.key] * d.last_conv.scale), d.last_conv.bias)
        return leaky_relu(d.last_linear(x.permute(0, 2, 3, 1).flatten(1).to(d.last_linear.weight.dtype)))

    def score(self, features: torch.Tensor, label: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        return self.network.score(features, label, x)

    def forward(self, img: torch.Tensor, label: torch.Tensor, x: torch.Tensor | None = None) -> torch.Tensor:
        return self.score(self.image_features(img), label, x)


def conv_nchw(x: torch.Tensor, weight: torch.Tensor, *, down: bool = False) -> torch.Tensor:
    """As :func:`conv3x3`, the weight in (O, I, 3, 3)."""
    return F.conv2d(fir(x, (2, 2)), weight, stride=2) if down else F.conv2d(x, weight, padding=1)
