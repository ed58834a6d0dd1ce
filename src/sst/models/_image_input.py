"""What models that look at cells are given: crops in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData

from sst import _keys
from sst._validate import check_key

if TYPE_CHECKING:
    from ._registry import Registry


class ImageInput:
    """Crops of an object or an array, read in blocks.

    Parameters
    ----------
    data
        AnnData with ``obsm["crops"]``, or uint8 images n x c x h x w (numpy or dask).
    registry
        The model's.
    same_size
        Whether images must have the size that the model was trained on.
    key
        Slot of ``obsm``.

    Raises
    ------
    KeyError
        The object has no crops.
    TypeError
        They are not uint8.
    ValueError
        Another number of axes or channels, or another size.
    """

    def __init__(
        self, data: AnnData | Any, registry: Registry, *, same_size: bool = True, key: str = _keys.CROPS
    ) -> None:
        images = check_key(data, "obsm", key, name="crops") if isinstance(data, AnnData) else data
        if isinstance(data, AnnData):
            channels = tuple(str(c) for c in data.uns.get(_keys.CROPS, {}).get("channels", registry.channels))
            if channels != registry.channels:
                msg = f"channels differ: the {registry.kind} model has {list(registry.channels)}, the object {list(channels)}."
                raise ValueError(msg)
        if getattr(images, "ndim", 0) != 4:
            msg = f"images have shape {getattr(images, 'shape', None)}; expected n x c x h x w."
            raise ValueError(msg)
        if np.dtype(images.dtype) != np.uint8:
            msg = f"images are {images.dtype}, not uint8: rescale their intensities first (sst.pp.rescale_intensity)."
            raise TypeError(msg)
        if images.shape[1] != len(registry.channels):
            msg = f"images have {images.shape[1]} channels; the {registry.kind} model was trained on {list(registry.channels)}."
            raise ValueError(msg)
        side = registry.output_size
        if same_size and tuple(images.shape[2:]) != (side, side):
            msg = f"images are {images.shape[2]} x {images.shape[3]} px; the {registry.kind} model was trained on {side} px."
            raise ValueError(msg)
        self.images = images
        self.n = int(images.shape[0])
        self._starts = (
            np.cumsum([0, *images.chunks[0]]) if hasattr(images, "chunks") and hasattr(images, "dask") else None
        )
        self._chunk: tuple[int, np.ndarray] | None = None

    def rows(self, a: int, b: int) -> np.ndarray:
        """Images ``a`` to ``b - 1``, (b - a) x c x h x w uint8; a chunk of a lazy array is read once, not once a batch."""
        if self._starts is None:
            return np.ascontiguousarray(self.images[a:b])
        parts = []
        while a < b:
            number = int(np.searchsorted(self._starts, a, side="right")) - 1
            start, stop = int(self._starts[number]), min(b, int(self._starts[number + 1]))
            if self._chunk is None or self._chunk[0] != number:
                self._chunk = number, np.asarray(self.images[start : int(self._starts[number + 1])])
            parts.append(self._chunk[1][a - start : stop - start])
            a = stop
        return np.ascontiguousarray(np.concatenate(parts)) if parts else np.asarray(self.images[:0])
