"""Pictures on disk as lazy arrays: TIFF pages, JPEG and PNG, in a folder or in a zip."""

from __future__ import annotations

import io
import json
import re
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dask.array as da

TIFF_SUFFIXES = (".tif", ".tiff")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
_CHUNK = 2048  # pixels: tiled pages are read in about this size
_BOMB = 500, 256 << 20  # a picture of so many times its packed size, and of so many bytes, is none
_ENDS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}


@dataclass(frozen=True, order=True)
class RasterFile:
    """A picture: a file, or a member of a zip file (``member``)."""

    path: str
    member: str = ""

    @property
    def name(self) -> str:
        """The file's own name."""
        return Path(self.member or self.path).name

    @property
    def suffix(self) -> str:
        """Its suffix in lower case."""
        return Path(self.name).suffix.lower()

    def __str__(self) -> str:
        return f"{self.path}::{self.member}" if self.member else self.path

    def open(self) -> Any:
        """A binary file that can seek."""
        if not self.member:
            return Path(self.path).open("rb")
        with zipfile.ZipFile(self.path) as archive:
            about = archive.getinfo(self.member)
            if about.file_size > _BOMB[1] and about.file_size > _BOMB[0] * about.compress_size:
                msg = f"{self} unpacks from {about.compress_size} to {about.file_size} bytes: it is not read."
                raise RasterError(msg)
            return io.BytesIO(archive.read(self.member))

    def size(self) -> int:
        """Bytes, unpacked."""
        if not self.member:
            return Path(self.path).stat().st_size
        with zipfile.ZipFile(self.path) as archive:
            return archive.getinfo(self.member).file_size


@dataclass(frozen=True)
class RasterInfo:
    """What a picture's header says."""

    shape: tuple[int, int, int]  # c, y, x
    dtype: np.dtype
    tiled: bool = False
    description: str = field(default="", repr=False)


class RasterError(ValueError):
    """A picture that cannot be read, or whose pixels are not all there."""


def raster_info(file: RasterFile) -> RasterInfo:
    """Read a picture's header, and check that the pixels it announces are in the file.

    Raises
    ------
    RasterError
        The file is empty, not a picture, or shorter than its header says.
    """
    try:
        if file.size() == 0:
            msg = f"{file} is empty."
            raise RasterError(msg)
        if file.suffix in TIFF_SUFFIXES:
            return _tiff_info(file)
        with file.open() as handle:
            import imageio.v3 as iio

            content = handle.read()
            if _ENDS[file.suffix] not in content[-64:]:
                msg = f"{file} is truncated: it does not end as a {file.suffix[1:]} does."
                raise RasterError(msg)
            properties = iio.improps(content, extension=file.suffix)
        shape = properties.shape
        return RasterInfo((shape[2] if len(shape) == 3 else 1, shape[0], shape[1]), np.dtype(properties.dtype))
    except RasterError:
        raise
    except Exception as error:
        msg = f"{file} cannot be read as a picture ({type(error).__name__}: {error})."
        raise RasterError(msg) from error


def _tiff_info(file: RasterFile) -> RasterInfo:
    import tifffile

    with file.open() as handle, tifffile.TiffFile(handle, is_ome=False) as tif:
        pages = [page for page in tif.pages if page.shape[:2] == tif.pages.first.shape[:2]]
        first = tif.pages.first
        end = max(
            (o + n for page in pages for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0
        )
        if end > tif.filehandle.size or not pages:
            msg = f"{file} is truncated: its pixels end at byte {end}, the file at {tif.filehandle.size}."
            raise RasterError(msg)
        if len(first.shape) > 2 and len(pages) > 1:
            msg = f"{file} has {len(pages)} pages of shape {first.shape}: expected pages of one channel."
            raise RasterError(msg)
        texts = [str(tag.value) for tag in first.tags if isinstance(tag.value, (str, bytes))]
        texts = [t for t in texts if "ChannelOrder" in t or "MorphologyReagents" in t]
        if len(first.shape) == 2:
            shape = (len(pages), first.shape[0], first.shape[1])
        elif first.axes.startswith("S"):
            shape = (first.shape[0], first.shape[1], first.shape[2])
        else:
            shape = (first.shape[2], first.shape[0], first.shape[1])
        return RasterInfo(shape, np.dtype(first.dtype), bool(first.is_tiled), texts[0] if texts else first.description)


@contextmanager
def _named(file: RasterFile) -> Iterator[None]:
    """Decoders' errors name no file."""
    try:
        yield
    except (RasterError, MemoryError, IndexError):
        raise
    except FileNotFoundError as error:
        msg = f"{file} is no longer there."
        raise RasterError(msg) from error
    except Exception as error:
        msg = f"{file} cannot be read to its end; is it truncated? ({type(error).__name__}: {error})"
        raise RasterError(msg) from error


def read_raster(file: RasterFile) -> np.ndarray:
    """The whole picture, ``(c, y, x)``; ``RasterError`` if its pixels are not all there."""
    with _named(file), file.open() as handle:
        if file.suffix in TIFF_SUFFIXES:
            import tifffile

            with tifffile.TiffFile(handle, is_ome=False) as tif:
                first = tif.pages.first
                pages = [page.asarray() for page in tif.pages if page.shape == first.shape]
                image = np.stack(pages) if first.ndim == 2 else pages[0]
                return image if first.ndim == 2 or first.axes.startswith("S") else np.moveaxis(image, -1, 0)
        import imageio.v3 as iio

        image = iio.imread(handle.read(), extension=file.suffix)
        return image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)


@dataclass
class LazyRaster:
    """An array-like over a picture: opened when sliced, safe to send to another process.

    Parameters
    ----------
    file
        The picture.
    info
        Its header. The picture is checked against it when it is opened.
    """

    file: RasterFile
    info: RasterInfo

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return self.info.shape

    @property
    def dtype(self) -> np.dtype:
        """The pixels' type."""
        return self.info.dtype

    @property
    def ndim(self) -> int:
        """Always 3."""
        return 3

    def __getitem__(self, key: Any) -> np.ndarray:
        key = key if isinstance(key, tuple) else (key,)
        if self.info.tiled and not self.file.member:
            return self._read_tiles(key)
        if self.file.suffix in TIFF_SUFFIXES:
            import tifffile

            with (
                _named(self.file),
                self.file.open() as handle,
                tifffile.TiffFile(handle, is_ome=False) as tif,
            ):
                if tif.pages.first.ndim == 2:  # one page a channel: read only the pages asked for
                    numbers = np.atleast_1d(np.arange(self.shape[0])[key[0]])
                    image = np.stack([self._check(tif.pages[int(n)].asarray()) for n in numbers])
                    drop = not isinstance(key[0], slice) and np.ndim(key[0]) == 0
                    return (image[0] if drop else image)[key[1:] if drop else (slice(None), *key[1:])]
        image = read_raster(self.file)
        self._check(image[0])
        return image[key]

    def _check(self, page: np.ndarray) -> np.ndarray:
        if page.shape != self.shape[1:]:
            msg = f"{self.file} is {page.shape[0]} x {page.shape[1]} px, expected {self.shape[1]} x {self.shape[2]}."
            raise RasterError(msg)
        return page

    def _read_tiles(self, key: tuple[Any, ...]) -> np.ndarray:
        import tifffile
        import zarr

        with _named(self.file), tifffile.TiffFile(self.file.path, is_ome=False) as tif:
            numbers = np.arange(self.shape[0])[key[0]]
            pages = []
            for n in np.atleast_1d(numbers):
                with tif.pages[int(n)].aszarr() as store:
                    array: Any = zarr.open(store, mode="r")
                    pages.append(np.asarray(array[key[1:] if len(key) > 1 else ...]))
            return pages[0] if np.ndim(numbers) == 0 else np.stack(pages)


def lazy_raster(file: RasterFile, info: RasterInfo | None = None) -> da.Array:
    """A picture as a dask array ``(c, y, x)``, one chunk a page (or a block of tiles, where the file is tiled)."""
    import dask.array as da
    from dask.base import tokenize

    info = info or raster_info(file)
    pages = file.suffix in TIFF_SUFFIXES and not file.member
    if info.tiled and pages:
        chunks: Any = (1, min(_CHUNK, info.shape[1]), min(_CHUNK, info.shape[2]))
    else:
        chunks = (1 if pages else info.shape[0], info.shape[1], info.shape[2])
    token = tokenize(str(file), info.shape, str(info.dtype), Path(file.path).stat().st_mtime_ns)
    return da.from_array(LazyRaster(file, info), chunks=chunks, name=f"raster-{token}", asarray=False, fancy=False)


def channel_names(description: str, n_channels: int) -> list[str] | None:
    """Names of a CosMx picture's pages from the JSON in its first page; ``None`` where it says nothing usable.

    ``ChannelOrder`` has a letter a page; ``MorphologyKit.MorphologyReagents[]`` say which target a letter shows
    (``Fluorophore.ChannelId``, ``BiologicalTarget``). ``U`` without a reagent is DAPI.
    """
    order, targets = None, {}
    start = description.find("{")
    try:
        tree = json.loads(description[start : description.rfind("}") + 1]) if start >= 0 else {}
    except json.JSONDecodeError:
        found = re.search(r'"ChannelOrder"\s*:\s*"([A-Za-z]+)"', description)
        return list(found.group(1)) if found and len(found.group(1)) == n_channels else None
    for node in _nodes(tree):
        order = node.get("ChannelOrder", order)
        fluorophore = node.get("Fluorophore")
        letter = fluorophore.get("ChannelId") if isinstance(fluorophore, dict) else None
        if letter and node.get("BiologicalTarget"):
            targets[str(letter)] = str(node["BiologicalTarget"])
    if not order or len(order) != n_channels:
        return None
    names = [stain_name(targets.get(letter, "DAPI" if letter == "U" else letter)) for letter in order]
    return [f"{name} ({letter})" if names.count(name) > 1 else name for name, letter in zip(names, order, strict=True)]


def stain_name(name: str) -> str:
    """``"DAPI"`` however it is written, so that slides have the same channels."""
    return "DAPI" if name.strip().lower() == "dapi" else name


def _nodes(tree: Any) -> Any:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)
