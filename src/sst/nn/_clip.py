"""Contrastive towers: one for a cell's image, one for its expression, into one space.

Source: Wu & Koelzer 2024, section 2.3; the projection head after Radford et al. 2021 as the paper describes it
(linear, GELU, linear, dropout, residual, layer norm).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional as F

from sst._validate import check_choice

from ._layers import ExpressionTransform
from ._norm import BatchNorm2d

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Backbone = Literal["small", "resnet50"]
Transform = Literal["log1p", "standard", "counts"]


class ProjectionHead(nn.Module):
    """Linear, GELU, linear, dropout, residual, layer norm: ``(n, in_features) -> (n, dim)``.

    The rows are not normalised to unit length; the layer norm gives them a norm near ``sqrt(dim)``, as a draw of
    ``N(0, I)`` has, which is what lets them stand in for ``z`` in the inversion.
    """

    def __init__(self, in_features: int, dim: int = 256, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.inner = nn.Linear(in_features, dim)
        self.outer = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Project ``x`` (n, in_features) to (n, dim)."""
        inner = self.inner(x)
        return self.norm(inner + self.dropout(self.outer(F.gelu(inner))))


class _Block(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut; halves the size."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x), inplace=True)


class SmallBackbone(nn.Module):
    """A residual network that a CPU can train: a stride-2 stem and one residual block per width.

    Parameters
    ----------
    channels
        Image channels.
    widths
        Channels of the stages; the first works at half the input's size, each later one at half of the one before.
    """

    def __init__(self, channels: int, widths: Sequence[int] = (32, 64, 128, 192)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 5, 2, 2, bias=False)
        self.norm = BatchNorm2d(widths[0])
        pairs = zip([widths[0], *widths[:-1]], widths, strict=True)
        self.stages = nn.ModuleList(_Block(i, o, 1 if k == 0 else 2) for k, (i, o) in enumerate(pairs))
        self.out_features = int(widths[-1])

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps of every stage for ``x`` (n, c, h, w) in [-1, 1]: (n, width, h / 2^(k+1), w / 2^(k+1))."""
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        out = []
        for stage in self.stages:
            x = stage(x)
            out.append(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Globally pooled features (n, out_features)."""
        return self.maps(x)[-1].mean((2, 3))


class ResNet50Backbone(nn.Module):
    """torchvision's ResNet-50 with ``channels`` input channels and no classifier, randomly initialised.

    Weights of ImageNet or of MoCo are loaded by :mod:`sst.models`, not here.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        from torchvision.models import resnet50

        net = resnet50(weights=None, norm_layer=BatchNorm2d)
        self.out_features = net.fc.in_features
        if channels != 3:
            net.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        net.fc = nn.Identity()
        self.net = net

    def maps(self, x: Tensor) -> list[Tensor]:
        """Feature maps of the four stages for ``x`` (n, c, h, w)."""
        net = self.net
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        out = []
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            x = stage(x)
            out.append(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Globally pooled features (n, 2048)."""
        return self.net(x)


def adapt_first_convolution(weight: Tensor, channels: int) -> Tensor:
    """Filters (o, 3, k, k) trained on RGB turned into (o, channels, k, k) that answer a grey image alike.

    Every channel gets the mean over RGB, times ``3 / channels``, so that an image repeated over its channels gives the
    response it gave before.
    """
    if weight.shape[1] == channels:
        return weight
    return weight.mean(1, keepdim=True).repeat(1, channels, 1, 1) * (weight.shape[1] / channels)


class ClipTowers(nn.Module):
    """Image tower and expression tower.

    Parameters
    ----------
    genes, channels
        Number of genes and of image channels.
    dim
        Dimension of the shared space.
    backbone
        ``"small"`` (trained from scratch in minutes on a CPU) or ``"resnet50"`` (the paper's).
    widths
        Stages of the small backbone.
    dropout
        Dropout inside both heads.
    transform
        ``"log1p"`` feeds ``log(1 + counts)`` to the expression head, ``"standard"`` that with mean 0 and standard deviation 1 a gene
        (:meth:`set_statistics`), ``"counts"`` the counts (the paper).
    """

    def __init__(
        self,
        genes: int,
        channels: int,
        *,
        dim: int = 256,
        backbone: Backbone = "small",
        widths: Sequence[int] = (32, 64, 128, 192),
        dropout: float = 0.1,
        transform: Transform = "log1p",
    ) -> None:
        super().__init__()
        check_choice("backbone", backbone, ("small", "resnet50"))
        check_choice("transform", transform, ("log1p", "standard", "counts"))
        self.transform = transform
        self.image_backbone = SmallBackbone(channels, widths) if backbone == "small" else ResNet50Backbone(channels)
        self.image_head = ProjectionHead(self.image_backbone.out_features, dim, dropout=dropout)
        self.expression_head = ProjectionHead(genes, dim, dropout=dropout)
        self.standard = ExpressionTransform(genes) if transform == "standard" else None

    def encode_image(self, images: Tensor) -> Tensor:
        """Projections (n, dim) of images (n, c, h, w) in [-1, 1]; not of unit length."""
        return self.image_head(self.image_backbone(images))

    def encode_expression(self, counts: Tensor) -> Tensor:
        """Projections (n, dim) of counts (n, p); not of unit length. Negative counts (jitter) are taken as 0."""
        counts = counts.clamp_min(0)
        if self.standard is not None:
            counts = self.standard(counts)
        return self.expression_head(torch.log1p(counts) if self.transform == "log1p" else counts)

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set per-gene mean and standard deviation of log(1 + counts), each of shape (p,); only ``"standard"`` uses them."""
        if self.standard is not None:
            self.standard.set_statistics(mean, std)

    def forward(self, images: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Both projections of a batch of pairs."""
        return self.encode_image(images), self.encode_expression(counts)
