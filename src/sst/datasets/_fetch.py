"""Public data, downloaded when they are asked for."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst._download import download, sha256_of
from sst._files import new_folder, read_json, write_json
from sst._settings import logger, settings
from sst._validate import describe_options

from ._registry import REGISTRY

if TYPE_CHECKING:
    from ._registry import PublicFile

HASHES = "sha256.json"


def fetch(name: str, *, data_dir: str | Path | None = None, unzip: bool = False, verify: bool = False) -> Path:
    """Download a file of the registry, once; a download that was cut off goes on where it was, in this call or the next.

    Publishers give no hashes for these files. The hash of the first download is kept in ``sha256.json`` in the data folder; the
    file is compared with it whenever its size or time of change differ from what was noted, when it is downloaded again, and
    with ``verify=True``.

    Parameters
    ----------
    name
        Key of ``sst.datasets.REGISTRY``.
    data_dir
        Where data are kept; ``None``: ``datasets`` in ``sst.settings.data_dir``.
    unzip
        Unpack it, and return the folder.
    verify
        Compare the file with its hash in any case (minutes for tens of GB).

    Returns
    -------
    The file, or the folder of what was in it.

    Raises
    ------
    KeyError
        The registry has no such name.
    ConnectionError
        It cannot be downloaded; the message says where to put a copy got otherwise.
    ValueError
        The file is not what it was when it was first downloaded, or is not a zip file.
    """
    if name not in REGISTRY:
        msg = f"name={name!r} is not in the registry. {describe_options(REGISTRY, name)}"
        raise KeyError(msg)
    item = REGISTRY[name]
    folder = Path(data_dir) if data_dir is not None else settings.data_dir / "datasets"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / item.file_name
    unpacked = folder / path.stem
    if unzip and not verify and unpacked.is_dir():
        return _only_folder(unpacked)
    if not path.is_file():
        _download(name, item, folder)
    _check(path, item, verify=verify)
    return _only_folder(_unpack(path, unpacked)) if unzip else path


def _download(name: str, item: PublicFile, folder: Path) -> None:
    path = folder / item.file_name
    logger.info("downloading %s (%s) from %s to %s", name, item.about, item.url, folder)
    try:
        digest = download(item.url, path, sha256=item.sha256 or _records(folder).get(path.name, {}).get("sha256", ""))
    except ConnectionError as error:
        msg = f"{name}: {error} Without a connection, put a copy of it at {path} and call again."
        raise ConnectionError(msg) from error
    _note(path, item, digest)


def _records(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / HASHES
    return read_json(path) if path.is_file() else {}


def _note(path: Path, item: PublicFile, digest: str) -> None:
    """What the file is from now on."""
    stat = path.stat()
    record = {"url": item.url, "sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    write_json(path.parent / HASHES, _records(path.parent) | {path.name: record})


def _check(path: Path, item: PublicFile, *, verify: bool) -> None:
    record = _records(path.parent).get(path.name)
    stat = path.stat()
    seen = record is not None and record["size"] == stat.st_size and record["mtime_ns"] == stat.st_mtime_ns
    if seen and not verify:
        return
    digest = sha256_of(path)
    expected = item.sha256 or (record["sha256"] if record else digest)
    if digest != expected:
        msg = f"{path} has the sha256 {digest}, expected {expected}: it is damaged or was replaced. Delete it and fetch it again."
        raise ValueError(msg)
    _note(path, item, digest)


def _unpack(path: Path, target: Path) -> Path:
    """Unpack a zip beside itself; what is there is whole, as it gets its name last."""
    if target.is_dir():
        return target
    try:
        with new_folder(target) as draft, zipfile.ZipFile(path) as archive:
            archive.extractall(draft)
    except zipfile.BadZipFile as error:
        msg = f"{path} is not a zip file ({error}). Delete it and fetch it again."
        raise ValueError(msg) from error
    return target


def _only_folder(folder: Path) -> Path:
    """``folder``, or the one folder that is all it holds."""
    inside = [p for p in folder.iterdir() if p.name != "__MACOSX" and not p.name.startswith(".")]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
