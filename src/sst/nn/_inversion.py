"""From codes to images: how the contrastive and the pixel code drive a frozen generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sst._validate import check_range

if TYPE_CHECKING:
    from torch import Tensor

    from ._generator import Generator, Noise


def fade_factor(fade: float) -> float:
    """What E_p's vectors are multiplied by at edit strength ``fade`` in [0, 1]: ``2^(-6 fade)``."""
    return 2.0 ** (-6.0 * check_range("fade", fade, low=0, high=1))


def base_code(generator: Generator, projection: Tensor) -> Tensor:
    """``mapping(E_c(x))``: projections (n, d), repeated up to ``z_dim`` and cut there, mapped to w (n, w_dim)."""
    times = -(-generator.z_dim // projection.shape[1])
    return generator.mapping(projection.repeat(1, times)[:, : generator.z_dim])


def decode(
    generator: Generator, base: Tensor, code: Tensor, counts: Tensor, *, fade: float = 0.0, noise: Noise = "none"
) -> Tensor:
    """Images (n, c, r, r) of ``w_l = mapping(E_c(x)) + 2^(-6 fade) E_p(x)_l`` under the kernels of ``counts``.

    Parameters
    ----------
    generator
        Frozen.
    base
        From :func:`base_code`, (n, w_dim).
    code
        From the pixel encoder, (n, num_styles, w_dim).
    counts
        (n, p); drive the kernels, and the gene style if the generator has one.
    fade
        Edit strength t in [0, 1]: fades the code that copies the cell's own pixels (Wu & Koelzer 2024, section 2.4).
    noise
        As :class:`sst.nn.Generator` takes it; ``"none"`` by default, so that a reconstruction is a function of the cell.
    """
    ws = base[:, None] + fade_factor(fade) * code
    return generator.synthesis(generator.styles(ws, counts), generator.kernels(counts), noise=noise)
