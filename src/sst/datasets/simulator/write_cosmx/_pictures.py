"""Pictures as the vendors save them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from sst.datasets.simulator._config import CHANNELS, FLUOROPHORES

if TYPE_CHECKING:
    from pathlib import Path


def write_morphology(path: Path, images: np.ndarray, *, names: bool, compression: str | None) -> None:
    """A ``Morphology2D`` picture: one page a stain (c x y x x), the stains' names in the JSON of the first page."""
    import tifffile

    reagents = [
        {"BiologicalTarget": target, "Fluorophore": {"ChannelId": letter}, "ReagentId": i + 1}
        for i, (target, letter) in enumerate(zip(CHANNELS, FLUOROPHORES, strict=True))
    ]
    note = {"ChannelOrder": "".join(FLUOROPHORES), "MorphologyKit": {"MorphologyReagents": reagents}}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tif:
        for i, page in enumerate(images):
            text = json.dumps(note) if names and i == 0 else None
            tif.write(page, photometric="minisblack", description=text, metadata=None, compression=compression)


def write_labels(path: Path, labels: np.ndarray) -> None:
    """A label picture, uint8 or uint16 (uint32 where there are too many cells)."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    if labels.dtype != np.uint8:
        labels = labels.astype(np.uint16 if labels.max(initial=0) < 65536 else np.uint32)
    tifffile.imwrite(
        path, labels, photometric="minisblack", metadata=None, compression="zlib", compressionargs={"level": 1}
    )
