"""Slots of images, their channels, and images as nuclei are looked for in them: as they are, or with the stains of an H&E taken apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sst import _keys
from sst._validate import describe_options
from sst.metrics import nucleus_features, stain_densities

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData


def get_images(adata: AnnData, key: str) -> Any:
    """``obsm[key]``, checked to be n x c x h x w.

    Raises
    ------
    KeyError
        No such slot; the message says how to make it.
    ValueError
        It holds no images.
    """
    if key not in adata.obsm:
        images = [k for k, v in adata.obsm.items() if getattr(v, "ndim", 0) == 4]
        hint = " Make images with sst.tl.edit or sst.tl.generate." if key != _keys.CROPS else ""
        msg = f"key={key!r} is not in adata.obsm. {describe_options(images, key)}{hint}"
        raise KeyError(msg)
    images = adata.obsm[key]
    if getattr(images, "ndim", 0) != 4:
        msg = f"obsm[{key!r}] holds no images: expected n x c x h x w, got shape {getattr(images, 'shape', None)}."
        raise ValueError(msg)
    return images


def image_keys(adata: AnnData) -> list[str]:
    """Every slot with images of the crops' shape, crops first."""
    shape = get_images(adata, _keys.CROPS).shape if _keys.CROPS in adata.obsm else None
    keys = [k for k, v in adata.obsm.items() if getattr(v, "ndim", 0) == 4 and (shape is None or v.shape == shape)]
    first = [k for k in (_keys.CROPS, _keys.GENERATED) if k in keys]
    return first + [k for k in keys if k not in first]


def channel_names(adata: AnnData) -> list[str]:
    """Names of the image channels, from ``uns["crops"]`` (numbers if it has none)."""
    names = adata.uns.get(_keys.CROPS, {}).get("channels")
    if names is not None and len(names):
        return [str(n) for n in names]
    keys = image_keys(adata)
    return [str(k) for k in range(adata.obsm[keys[0]].shape[1])] if keys else []


def find_nucleus_channel(channels: Sequence[str], wanted: str | int | None = None) -> int:
    """Index of the channel that shows nuclei: the one named, else by its name, else the only one.

    Raises
    ------
    KeyError
        It is not there, or none has a known name.
    """
    if isinstance(wanted, str):
        if wanted not in channels:
            msg = f"nucleus_channel={wanted!r} is not a channel. {describe_options(channels, wanted)}"
            raise KeyError(msg)
        return list(channels).index(wanted)
    if wanted is not None:
        if not 0 <= wanted < len(channels):
            msg = f"nucleus_channel={wanted!r} is not a channel. {describe_options(range(len(channels)))}"
            raise KeyError(msg)
        return int(wanted)
    if len(channels) == 1:
        return 0
    # The last is the plane of CosMx composites that the vendor paints with DAPI.
    for sign in ("dapi", "hoechst", "nucle", "dna", "draq", "sytox", "histone", "composite_b"):
        for index, name in enumerate(channels):
            if sign in name.lower():
                return index
    msg = (
        f"no channel of the crops, {list(channels)}, is known to show nuclei: say which with nucleus_channel=, or by its name in "
        "uns['crops']['channels']."
    )
    raise KeyError(msg)


STAINS = ("hematoxylin", "eosin")  # as stain_densities gives them


@dataclass(frozen=True)
class NucleusView:
    """Which channel of an object's images shows nuclei, and what is measured of them.

    Attributes
    ----------
    channels
        Names; of brightfield images hematoxylin and eosin follow the colours.
    nucleus
        Index of the one that shows nuclei.
    brightfield
        Whether stains are taken apart: nuclei are dark there, hematoxylin is not.
    pixel_size
        um per pixel, 0 if unknown.
    """

    channels: list[str]
    nucleus: int
    brightfield: bool
    pixel_size: float

    @classmethod
    def of(cls, adata: AnnData, nucleus_channel: str | int | None = None) -> Self:
        """The view of an object's images.

        Raises
        ------
        KeyError
            No channel is known to show nuclei.
        """
        channels, light = channel_names(adata), _keys.is_brightfield(adata)
        if light:
            channels = [*channels, *STAINS]
            nucleus_channel = STAINS[0] if nucleus_channel is None else nucleus_channel
        size = float(adata.uns.get(_keys.CROPS, {}).get("pixel_size", 0.0) or 0.0)
        return cls(channels, find_nucleus_channel(channels, nucleus_channel), light, size)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images with the channels of the view (float32 where stains were taken apart)."""
        if not self.brightfield:
            return images
        return np.concatenate([images.astype(np.float32), stain_densities(images)], axis=1)

    def measure(self, images: np.ndarray, **options: Any) -> pd.DataFrame:
        """:func:`sst.metrics.nucleus_features` of images of the object."""
        return nucleus_features(
            self(images),
            nucleus_channel=self.nucleus,
            channels=self.channels,
            pixel_size=self.pixel_size or None,
            **options,
        )
