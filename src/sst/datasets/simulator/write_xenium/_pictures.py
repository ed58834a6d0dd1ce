"""Pictures of a Xenium bundle."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from ._layout import STAINS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from ._layout import XeniumLayout

_TILE = 1024


def write_pictures(
    folder: Path,
    images: np.ndarray,
    stains: Sequence[str],
    form: XeniumLayout,
    pixel_size: float,
    compression: str | None,
) -> None:
    """Write each stain (c x y x x) as a pyramidal OME-TIFF, in the files that this version has."""
    if not form.focus_folder:
        for name in ("morphology_mip.ome.tif", "morphology_focus.ome.tif"):
            _write([folder / name], images[:1], ["DAPI"], pixel_size, compression)
        return
    folder = folder / "morphology_focus"
    folder.mkdir(exist_ok=True)
    files = [STAINS[s][1] if form.named_files else f"morphology_focus_{i:04d}.ome.tif" for i, s in enumerate(stains)]
    _write([folder / f for f in files], images, [STAINS[s][0] for s in stains], pixel_size, compression)


def _write(paths: list[Path], images: np.ndarray, names: list[str], pixel_size: float, compression: str | None) -> None:
    """One file a channel; each carries the same metadata, which say what is in which file."""
    import tifffile

    ids = [f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, path.name)}" for path in paths]
    height, width = images.shape[1:]
    channels = "".join(f'<Channel ID="Channel:{i}" Name="{name}" SamplesPerPixel="1"/>' for i, name in enumerate(names))
    data = "".join(
        f'<TiffData FirstZ="0" FirstT="0" FirstC="{i}" IFD="0" PlaneCount="1"><UUID FileName="{path.name}">{own}</UUID></TiffData>'
        for i, (path, own) in enumerate(zip(paths, ids, strict=True))
    )
    for path, own, image in zip(paths, ids, images, strict=True):
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{own}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="{width}" SizeY="{height}" SizeZ="1" SizeC="{len(names)}" SizeT="1" '
            f'PhysicalSizeX="{pixel_size}" PhysicalSizeXUnit="&#181;m" PhysicalSizeY="{pixel_size}" '
            f'PhysicalSizeYUnit="&#181;m">{channels}{data}</Pixels></Image></OME>'
        )
        levels = [image]
        while min(levels[-1].shape) > _TILE and len(levels) < 6:
            levels.append(_half(levels[-1]))
        with tifffile.TiffWriter(path, bigtiff=True) as tif:
            for i, level in enumerate(levels):
                tif.write(
                    level,
                    tile=(_TILE, _TILE),
                    photometric="minisblack",
                    compression=compression,
                    compressionargs={"level": 1} if compression == "zlib" else None,
                    description=text if i == 0 else None,
                    metadata=None,
                    subifds=len(levels) - 1 if i == 0 else 0,
                    subfiletype=0 if i == 0 else 1,
                )


def _half(image: np.ndarray) -> np.ndarray:
    height, width = (s // 2 * 2 for s in image.shape)
    return image[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)).astype(image.dtype)
