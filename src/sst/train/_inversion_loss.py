"""The inversion's loss: pixels, perception, identity; pure functions of tensors and frozen networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Distance(Protocol):
    """A frozen network that compares images; see :mod:`sst.nn`."""

    def targets(self, images: Tensor) -> Any:
        """What is computed once for the real images."""

    def __call__(self, images: Tensor, targets: Any) -> Tensor:
        """Distance (n,) to the real images."""


def pixel_loss(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference per image: (n, c, h, w) twice -> (n,)."""
    return (output - target).square().mean((1, 2, 3))


def inversion_loss(
    output: Tensor,
    target: Tensor,
    *,
    l2: float,
    perceptual: tuple[float, Distance, Any] | None = None,
    identity: tuple[float, Distance, Any] | None = None,
) -> dict[str, Tensor]:
    """All terms per cell, and their weighted sum; the whole batch at once.

    Parameters
    ----------
    output, target
        Reconstruction and real image, (n, c, h, w) in [-1, 1].
    l2
        Weight of the pixel term.
    perceptual, identity
        Weight, frozen network and that network's targets for the real images; ``None`` leaves the term out.

    Returns
    -------
    ``{"total", "l2", ...}``, each (n,): ``total = l2 * L2 + w_p * perceptual + w_i * identity`` (Wu & Koelzer 2024: 15, 0.5, 0.5).
    """
    terms = {"l2": pixel_loss(output, target)}
    total = l2 * terms["l2"]
    for name, part in (("perceptual", perceptual), ("identity", identity)):
        if part is not None:
            weight, network, targets = part
            terms[name] = network(output, targets)
            total = total + weight * terms[name]
    return {"total": total, **terms}
