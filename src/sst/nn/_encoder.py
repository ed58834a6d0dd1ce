"""The pixel encoder E_p: an image to one vector per style input of the generator.

Source: Richardson et al. 2021 (pixel2style2pixel), as Wu & Koelzer 2024 set it up: a stem of stride 1 at 128 px, the
four stages of ResNet-34, a feature pyramid, one head per style input. With ``residual=True`` it also sees the current
reconstruction and predicts what to add to the code (Alaluf et al. 2021, ReStyle).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from sst._validate import check_range

from ._heads import StyleHeads
from ._inversion import Code
from ._map_heads import MapHeads
from ._norm import Norm, norm_layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def style_levels(num_styles: int) -> list[int]:
    """Which of three pyramid maps (0 coarse, 1 middle, 2 fine) each style input reads.

    The first quarter of the styles (4 and 8 px at 128 px) is coarse, the next third middle (16 and 32 px), the rest fine.
    """
    coarse = max(round(num_styles / 4), 1)
    middle = max(round(num_styles / 3), 1)
    return [0 if k < coarse else 1 if k < coarse + middle else 2 for k in range(num_styles)]


class PixelEncoder(nn.Module):
    """Image (n, c, r, r) in [-1, 1] -> :class:`Code`: styles (n, num_styles, w_dim) and, if asked for, maps.

    Parameters
    ----------
    channels
        Image channels.
    resolution
        Image size in pixels, 16 to 256.
    num_styles, w_dim
        Of the generator that is inverted.
    widths, depths
        Channels and residual blocks of the four stages. ``(64, 128, 256, 512)`` and ``(3, 4, 6, 3)`` is ResNet-34, whose
        blocks are taken from torchvision so that its weights fit.
    head_width
        Channels inside a style head.
    residual
        Also take the current reconstruction (2 c input channels).
    map_sizes, map_channels
        Size and channels of each map that is added to the generator's feature maps, one a convolution from the first on; empty: none.
    map_width
        Channels of the path to the maps.
    norm
        See :func:`norm_layer`.
    """

    def __init__(
        self,
        channels: int,
        resolution: int,
        *,
        num_styles: int,
        w_dim: int = 512,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        head_width: int = 512,
        residual: bool = False,
        map_sizes: Sequence[int] = (),
        map_channels: Sequence[int] = (),
        map_width: int = 32,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        check_range("resolution", resolution, low=16, high=256)
        if len(widths) != 4 or len(depths) != 4:
            msg = f"widths={list(widths)} and depths={list(depths)} must name four stages each."
            raise ValueError(msg)
        self.channels, self.resolution, self.residual = channels, resolution, residual
        self.stem = nn.Conv2d(
            channels * (2 if residual else 1), widths[0], 7, stride=1 if resolution <= 128 else 2, padding=3, bias=False
        )
        self.norm = norm_layer(norm)(widths[0])
        self.layer1 = _stage(widths[0], widths[0], depths[0], stride=1, norm=norm)
        self.layer2 = _stage(widths[0], widths[1], depths[1], stride=2, norm=norm)
        self.layer3 = _stage(widths[1], widths[2], depths[2], stride=2, norm=norm)
        self.layer4 = _stage(widths[2], widths[3], depths[3], stride=2, norm=norm)
        self.pooled = resolution >= 64
        finest = resolution // (2 if resolution > 128 else 1) // (2 if self.pooled else 1)
        sizes = [-(-finest // 2**k) for k in (3, 2, 1)]  # coarse, middle, fine: layers 4, 3 and 2
        pyramid = widths[3]
        self.lateral_middle = nn.Conv2d(widths[2], pyramid, 1)
        self.lateral_fine = nn.Conv2d(widths[1], pyramid, 1)
        self.heads = StyleHeads(pyramid, sizes, style_levels(num_styles), width=head_width, out_features=w_dim)
        self.maps: MapHeads | None = None
        if map_sizes:
            stem = resolution // (1 if resolution <= 128 else 2)
            by_size = {
                sizes[0]: widths[3],
                sizes[1]: widths[2],
                sizes[2]: widths[1],
                finest: widths[0],
                stem: widths[0],
            }
            self.maps = MapHeads(by_size, map_sizes, map_channels, width=map_width)

    def forward(self, images: Tensor, current: Tensor | None = None) -> Code:
        """Code of ``images``; ``current`` is the reconstruction so far (only with ``residual=True``)."""
        if self.residual:
            images = torch.cat([images, torch.zeros_like(images) if current is None else current], dim=1)
        x = F.relu(self.norm(self.stem(images)), inplace=True)
        seen = [x]
        if self.pooled:
            x = F.max_pool2d(x, 3, 2, 1)
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            seen.append(x)
        fine, middle, coarse = seen[2:]
        maps = () if self.maps is None else self.maps({m.shape[-1]: m for m in seen})
        middle = self.lateral_middle(middle) + _enlarge(coarse, middle)
        fine = self.lateral_fine(fine) + _enlarge(middle, fine)
        return Code(self.heads([coarse, middle, fine]), maps)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def _stage(before: int, width: int, depth: int, *, stride: int, norm: Norm) -> nn.Sequential:
    """Residual blocks of torchvision (so that its ResNet-34 weights fit by name), initialised as torchvision does."""
    from torchvision.models.resnet import BasicBlock

    blocks = []
    for k in range(depth):
        step = stride if k == 0 else 1
        shortcut = None
        if step != 1 or before != width:
            shortcut = nn.Sequential(nn.Conv2d(before, width, 1, step, bias=False), norm_layer(norm)(width))
        blocks.append(BasicBlock(before, width, step, shortcut, norm_layer=norm_layer(norm)))
        before = width
    for module in nn.ModuleList(blocks).modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(*blocks)
