"""How near an editor's cells come to real cells that it never saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sst.metrics import psnr
from sst.train import to_uint8, to_unit

from ._held_out import CHUNK, HeldOut


class HeldOutEdits(HeldOut):
    """Distances between real held-out cells and the same cells edited to one another's expression.

    ``distance``, ``distance_images`` and ``diversity`` as in :class:`HeldOut`, of each cell under the next one's expression (of its slide, where there
    are ``slides``). ``returned``: median
    PSNR (dB) of cells that were edited back, to what they were.
    """

    def __init__(
        self, images: np.ndarray, counts: np.ndarray, names: list[str], slides: np.ndarray | None = None
    ) -> None:
        super().__init__(images, counts, names)
        self.crops = images
        mixed = np.random.default_rng(0).permutation(len(names))
        self.next = np.roll(mixed, 1)
        if slides is not None:
            for slide in np.unique(slides):
                mine = mixed[slides[mixed] == slide]
                self.next[mine] = np.roll(mine, 1)
        self.drawn = self.expression[self.next]

    def edited(self, editor: Any, rows: np.ndarray, *, back: bool = False) -> np.ndarray:
        """Some cells (``rows``) under the expression that is meant for them, uint8; ``back``: and under their own again."""
        device = next(editor.parameters()).device
        made = []
        with torch.no_grad():
            for part in np.split(rows, np.arange(CHUNK, len(rows), CHUNK)):
                own, target = (torch.from_numpy(self.counts[r]).to(device) for r in (part, self.next[part]))
                images = editor(to_unit(torch.from_numpy(self.crops[part]).to(device)), own, target)
                images = editor(images, target, own) if back else images
                made.append(to_uint8(images).cpu().numpy())
        return np.concatenate(made)

    def images(self, generator: Any, rows: np.ndarray | None = None) -> np.ndarray:
        """Edited images of (some of the) held-out cells, n x c x h x w uint8."""
        return self.edited(generator, np.arange(len(self.names)) if rows is None else rows)

    def __call__(self, generator: Any) -> dict[str, float]:
        """``distance``, ``distance_images``, ``diversity`` and ``returned`` of an editor."""
        some = np.arange(min(CHUNK, len(self.names)))
        back = psnr(self.crops[some], self.edited(generator, some, back=True))
        return super().__call__(generator) | {"returned": float(np.median(back))}
