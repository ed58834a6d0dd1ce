"""From codes to images: how the contrastive and the pixel code drive a frozen generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sst._validate import check_range

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ._generator import Generator, Noise


@dataclass(frozen=True)
class Code:
    """What the pixel encoder says about cells.

    Attributes
    ----------
    styles
        One vector per style input of the generator, (n, num_styles, w_dim).
    maps
        What is added to the generator's feature maps, one a convolution from the first on, (n, r, r, k); may be empty.
    """

    styles: Tensor
    maps: tuple[Tensor, ...] = ()

    def each(self, function: Callable[[Tensor], Tensor]) -> Code:
        """The code with ``function`` applied to each of its tensors."""
        return Code(function(self.styles), tuple(function(m) for m in self.maps))

    def __add__(self, other: Code) -> Code:
        return Code(self.styles + other.styles, tuple(a + b for a, b in zip(self.maps, other.maps, strict=True)))

    def __sub__(self, other: Code) -> Code:
        return self + other.each(torch.neg)

    def __getitem__(self, rows: Any) -> Code:
        """The code of some of the cells."""
        return self.each(lambda part: part[rows])

    @property
    def tensors(self) -> list[Tensor]:
        """All parts."""
        return [self.styles, *self.maps]

    @staticmethod
    def cat(codes: Sequence[Code]) -> Code:
        """The cells of several codes in one."""
        parts = [torch.cat(p) for p in zip(*(c.tensors for c in codes), strict=True)]
        return Code(parts[0], tuple(parts[1:]))


def fade_factor(fade: float) -> float:
    """What E_p's vectors are multiplied by at edit strength ``fade`` in [0, 1]: ``2^(-6 fade)``."""
    return 2.0 ** (-6.0 * check_range("fade", fade, low=0, high=1))


def base_code(generator: Generator, projection: Tensor) -> Tensor:
    """``mapping(E_c(x))``: projections (n, d), repeated up to ``z_dim`` and cut there, mapped to w (n, w_dim)."""
    times = -(-generator.z_dim // projection.shape[1])
    return generator.mapping(projection.repeat(1, times)[:, : generator.z_dim])


def decode(
    generator: Generator, base: Tensor, code: Code | Tensor, counts: Tensor, *, fade: float = 0.0, noise: Noise = "none"
) -> Tensor:
    """Images (n, c, r, r) of ``w_l = mapping(E_c(x)) + 2^(-6 fade) E_p(x)_l`` under the kernels of ``counts``.

    Parameters
    ----------
    generator
        Frozen.
    base
        From :func:`base_code`, (n, w_dim).
    code
        From the pixel encoder (or its styles alone, (n, num_styles, w_dim)).
    counts
        (n, p); drive the kernels, and the gene style if the generator has one.
    fade
        Edit strength t in [0, 1]: fades the code that copies the cell's own pixels (Wu & Koelzer 2024, section 2.4).
    noise
        As :class:`sst.nn.Generator` takes it; ``"none"`` by default, so that a reconstruction is a function of the cell.
    """
    code = (code if isinstance(code, Code) else Code(code)).each(lambda part: fade_factor(fade) * part)
    ws = base[:, None] + code.styles
    return generator.synthesis(generator.styles(ws, counts), generator.kernels(counts), noise=noise, maps=code.maps)
