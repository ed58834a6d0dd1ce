"""Frozen networks that say how alike two images look, in two forms each.

=============  ==========================================  ===================================================
what           with downloaded weights                     substitute without any download
=============  ==========================================  ===================================================
perceptual     LPIPS on AlexNet (Zhang et al. 2018)        the same distance over the stages of the own CLIP
                                                           image tower, all weights equal
identity       1 - cosine of ResNet-50 MoCo v2 features    1 - cosine of the own CLIP image tower's pooled
               (He et al. 2020), input at 224 px           features
=============  ==========================================  ===================================================

All take images (n, c, h, w) in [-1, 1]. ``targets`` runs once on the real images, ``forward`` on the output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from ._clip import ResNet50Backbone, SmallBackbone

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def as_rgb(images: Tensor) -> Tensor:
    """Images of 1, 2 or 3 channels as three: one is repeated, two get an empty (-1) first channel (the paper's padding).

    Raises
    ------
    ValueError
        There are more than three channels.
    """
    channels = images.shape[1]
    if channels == 1:
        return images.expand(-1, 3, -1, -1)
    if channels == 2:
        return torch.cat([torch.full_like(images[:, :1], -1.0), images], dim=1)
    if channels == 3:
        return images
    msg = f"networks trained on RGB take 1 to 3 channels, got {channels}: choose the 'clip' substitute."
    raise ValueError(msg)


def _unit(x: Tensor, eps: float = 1e-10) -> Tensor:
    return x / (x.square().sum(1, keepdim=True) + eps).sqrt()


class MapDistance(nn.Module):
    """LPIPS with equal weights over a backbone's stages: the substitute that needs no download.

    ``d(x, y) = mean_l mean_hw sum_c (f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)|)^2``, with ``f_l`` the maps of stage ``l``.
    """

    def __init__(self, backbone: SmallBackbone | ResNet50Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def targets(self, images: Tensor) -> list[Tensor]:
        """Normalised maps of the real images."""
        return [_unit(m) for m in self.backbone.maps(images)]

    def forward(self, images: Tensor, targets: list[Tensor]) -> Tensor:
        """Distance (n,) of ``images`` to the images that gave ``targets``."""
        parts = [
            (_unit(m) - t).square().sum(1).mean((1, 2))
            for m, t in zip(self.backbone.maps(images), targets, strict=True)
        ]
        return torch.stack(parts).mean(0)


class LpipsDistance(nn.Module):
    """LPIPS of the ``lpips`` package, with the features of the real images computed once.

    Parameters
    ----------
    network
        An ``lpips.LPIPS`` module with its weights loaded.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def targets(self, images: Tensor) -> list[Tensor]:
        """Normalised AlexNet maps of the real images."""
        network = cast("Any", self.network)
        return [_unit(m) for m in network.net(network.scaling_layer(as_rgb(images)))]

    def forward(self, images: Tensor, targets: list[Tensor]) -> Tensor:
        """LPIPS (n,) of ``images`` to the images that gave ``targets``."""
        network = cast("Any", self.network)
        maps = network.net(network.scaling_layer(as_rgb(images)))
        parts = [
            lin((_unit(m) - t).square()).mean((1, 2, 3)) for lin, m, t in zip(network.lins, maps, targets, strict=True)
        ]
        return torch.stack(parts).sum(0)


class CosineDistance(nn.Module):
    """``1 - cosine`` of a backbone's pooled features; with ``rgb=True`` after padding to RGB, 224 px, ImageNet scaling."""

    def __init__(self, backbone: nn.Module, *, rgb: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.rgb = rgb
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def _features(self, images: Tensor) -> Tensor:
        if self.rgb:
            images = F.interpolate(
                as_rgb(images), size=(224, 224), mode="bilinear", align_corners=False, antialias=True
            )
            images = ((images + 1) / 2 - cast("Tensor", self.mean)) / cast("Tensor", self.std)
        return self.backbone(images)

    def targets(self, images: Tensor) -> Tensor:
        """Features (n, d) of the real images."""
        return self._features(images)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Distance (n,) of ``images`` to the images that gave ``targets``."""
        return 1 - F.cosine_similarity(self._features(images), targets, dim=1)
