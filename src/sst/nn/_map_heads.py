"""Map heads: from a pyramid of feature maps to what is added to the generator's feature maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class MapHeads(nn.Module):
    """A path from coarse to fine; at each size, one map per convolution of the generator at that size.

    Parameters
    ----------
    pyramid
        Channels of the encoder's feature maps by their size in px.
    sizes, channels
        Size and channels of each map, coarse to fine.
    width
        Channels of the path.

    Notes
    -----
    A map's mean is taken off: it says where, while how bright and of what kind is left to the styles, which the genes share in. The last layers start at zero: an untrained head adds nothing.
    """

    def __init__(
        self, pyramid: Mapping[int, int], sizes: Sequence[int], channels: Sequence[int], *, width: int
    ) -> None:
        super().__init__()
        self.sizes, self.channels = tuple(sizes), tuple(channels)
        self.steps = sorted(set(sizes))
        # Where the encoder has no map of a size, its nearest one is resized.
        self.sources = [min(pyramid, key=lambda s: (abs(s - r), s)) for r in self.steps]
        self.laterals = nn.ModuleList(nn.Conv2d(pyramid[s], width, 1) for s in self.sources)
        self.mixes = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in self.steps)
        self.outs = nn.ModuleList(
            nn.Conv2d(width, sum(c for s, c in zip(sizes, channels, strict=True) if s == r), 1) for r in self.steps
        )
        for parameter in self.outs.parameters():
            nn.init.zeros_(parameter)

    def forward(self, pyramid: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
        """Feature maps by size, (n, channels, s, s), -> maps (n, r, r, k), coarse to fine."""
        x: Tensor | None = None
        made: list[Tensor] = []
        for k, (size, source) in enumerate(zip(self.steps, self.sources, strict=True)):
            here = _resize(self.laterals[k](pyramid[source]), size)
            x = F.leaky_relu(self.mixes[k](here if x is None else here + _resize(x, size)), 0.2)
            widths = [c for s, c in zip(self.sizes, self.channels, strict=True) if s == size]
            out = self.outs[k](x)
            out = out - out.mean((2, 3), keepdim=True)
            made += [m.permute(0, 2, 3, 1) for m in out.split(widths, dim=1)]
        return tuple(made)


def _resize(x: Tensor, size: int) -> Tensor:
    if x.shape[-1] == size:
        return x
    if x.shape[-1] > size:
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
