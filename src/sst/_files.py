"""Files and folders that are whole or not there, and folders that one process has to itself.

What this package writes under a final name goes through here: it is written under a hidden name beside it, put on the disk, and
renamed. Killed at any moment, with a full disk or a power cut, the old content stands or the new one, never a part of it. A full disk
is an ``OSError`` that names the path, whichever library was writing.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._settings import logger

if TYPE_CHECKING:
    from collections.abc import Iterator

DRAFT, OLD = ".draft-", ".old-"  # what hidden names begin with; a random word and the final name follow
NEXT = ".next"  # folder of files that replace others together
SCRATCH = "sst-"  # what names of scratch folders begin with
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # file systems that know none
_held: dict[Path, int] = {}  # lock file -> thread of this process that holds it
_handles: dict[Path, int] = {}  # lock file -> open file


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write or replace a text file (UTF-8), whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write or replace a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write or replace a file, whole or not at all."""
    with new_file(path) as draft:
        draft.write_bytes(content)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        It is damaged; the message names the file.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        size = Path(path).stat().st_size
        msg = f"{path} is damaged: {size} bytes that are no JSON ({error})."
        raise ValueError(msg) from error


def read_mark(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """A JSON file that says that something is finished; ``None``, so not finished, if it is not there or is damaged."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Within, a full disk is an ``OSError`` that names the path: libraries report it as they like, most without."""
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) in _FULL or "No space left on device" in str(error):
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A draft for whoever writes a file by its path: it gets its name, and replaces a file of that name, when the block ends well.

    The draft's name ends like ``path``'s, for libraries that look at a file's extension. Folders above are made.

    Parameters
    ----------
    path
        Final name; where it is a link, the file it leads to is replaced.

    Yields
    ------
    The path to write to. After an error nothing is left of it, and what stood under ``path`` stands.
    """
    target, draft = _names(path)
    with naming_full_disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield draft
            _sync(draft)
            draft.replace(target)
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        _sync(target.parent)


@contextmanager
def new_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A draft of a folder: it gets its name when the block ends well and all its files are on the disk.

    Parameters
    ----------
    path
        Final name.
    overwrite
        Replace a folder of that name, which stands until then.

    Yields
    ------
    An empty folder to fill. After an error nothing is left of it.

    Raises
    ------
    FileExistsError
        There is something of that name and ``overwrite`` is false.
    """
    target, draft = _names(path)
    if not overwrite and target.exists():
        raise _exists(target)
    with naming_full_disk(target):
        draft.mkdir(parents=True)
        try:
            yield draft
            sync_folder(draft)
            if overwrite:
                replace_folder(draft, target)
            elif target.exists():  # made meanwhile
                raise _exists(target)
            else:
                draft.rename(target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _sync(target.parent)


@contextmanager
def new_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Drafts of several files that belong together: all of them replace those of their names in ``folder``, or none.

    Whoever reads them asks :func:`current` for each. A process killed while they are moved to their place has them replaced already:
    the next writer moves the rest.

    Yields
    ------
    A folder to write them to. After an error nothing is left of it.

    Raises
    ------
    BlockingIOError
        Another process is writing them.
    """
    place = Path(os.path.realpath(folder))
    with locked(place / NEXT):
        remove_leftovers(place)
        _move_in(place)
        with new_folder(place / NEXT) as draft:
            yield draft
        _move_in(place)


def current(folder: str | os.PathLike[str], name: str) -> Path:
    """Where a file that :func:`new_files` wrote is."""
    moving = Path(folder, NEXT, name)
    return moving if moving.exists() else Path(folder, name)


def _move_in(place: Path) -> None:
    if (place / NEXT).is_dir():
        for path in sorted((place / NEXT).iterdir()):
            path.replace(place / path.name)
        _sync(place)
        (place / NEXT).rmdir()


def replace_folder(new: Path, target: Path) -> None:
    """Give a folder its final name; what had that name is removed once the new one stands.

    Linux swaps both names in one step. Elsewhere there is a moment between two renames without either: killed there,
    :func:`remove_leftovers` puts the old one back.
    """
    old = target.with_name(f"{OLD}{secrets.token_hex(4)}-{target.name}")
    if not target.exists():
        new.rename(target)
    elif _swap(new, target):
        new.rename(old)
    else:
        target.rename(old)
        try:
            new.rename(target)
        except OSError:
            old.rename(target)
            raise
    _remove(old)


def remove_folder(folder: Path) -> None:
    """Remove a folder, its name first: killed meanwhile, what is left is what :func:`remove_leftovers` removes."""
    draft = _names(folder)[1]
    folder.rename(draft)
    _remove(draft)


def sync_folder(folder: Path) -> None:
    """Put all files of a folder on the disk."""
    for inside, _, files in os.walk(folder):
        for name in files:
            _sync(Path(inside, name))
        _sync(Path(inside))


def remove_leftovers(folder: str | os.PathLike[str], name: str | None = None) -> list[str]:
    """Remove what killed writers left in a folder (not in those inside it); call it only where nobody else writes: under its lock.

    Parameters
    ----------
    folder
        The folder.
    name
        Only what was to get, or had, this name: where the lock is that of one file or folder inside.

    Returns
    -------
    Names of what was removed or put back.
    """
    seen = []
    for path in sorted(Path(folder).glob(".*")):
        if name is not None and path.name.split("-", 2)[-1] != name:
            continue
        if path.name.startswith(DRAFT):
            _remove(path)
        elif path.name.startswith(OLD):
            final = path.with_name(path.name.removeprefix(OLD).split("-", 1)[-1])
            if final.exists():
                _remove(path)
            else:
                path.rename(final)
        else:
            continue
        seen.append(path.name)
    return seen


@contextmanager
def locked(path: str | os.PathLike[str], doing: str = "written") -> Iterator[None]:
    """Have a folder (or file) to this process alone. The operating system releases it when the process ends, however it ends.

    The lock is a file beside it, ``.<name>.lock``, so what is locked need not be there yet, and may be renamed. Within the thread that
    holds it, asking again is harmless. Where a file system knows no locks, a warning says so.

    Parameters
    ----------
    path
        What to lock; everybody who writes there must ask for the same.
    doing
        What happens to it meanwhile, for the other's message.

    Raises
    ------
    BlockingIOError
        Another process (or thread) has it; the message says which, where and since when.
    """
    target = Path(os.path.realpath(path))
    lock = target.with_name(f".{target.name}.lock")
    me = threading.get_ident()
    if _held.get(lock) == me:
        yield
        return
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = _take(lock, target)
    if handle is None:
        yield
        return
    _held[lock], _handles[lock] = me, handle
    try:
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S%z")}
        with suppress(OSError):  # a full disk: the lock holds without the note
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(note | {"doing": doing}).encode(), 0)
        yield
    finally:
        if _handles.pop(lock, None) is not None:  # a forked child has given it up
            del _held[lock]
            with suppress(OSError):
                lock.unlink()
            os.close(handle)


@contextmanager
def scratch_folder(where: str | os.PathLike[str] | None = None, prefix: str = SCRATCH) -> Iterator[Path]:
    """A new folder for passing use, removed at the end; what killed processes left of theirs is removed first.

    Parameters
    ----------
    where
        Folder to make it in; ``None``: the system's for temporary files.
    prefix
        What its name begins with.
    """
    parent = Path(where) if where is not None else Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    for lock in parent.glob(f".{prefix}*.lock"):
        left = lock.with_name(lock.name[1:-5])
        if Path(os.path.realpath(parent), lock.name) not in _held:
            with suppress(OSError), locked(left):  # raises where its owner still runs
                _remove(left)
    folder = parent / f"{prefix}{secrets.token_hex(6)}"
    with locked(folder), naming_full_disk(folder):
        folder.mkdir()
        try:
            yield folder
        finally:
            _remove(folder)


def _take(lock: Path, target: Path) -> int | None:
    """The open, locked file; ``None`` where there are no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError:
            if not lock.exists():
                raise
            handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)  # another user's
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine, there = os.fstat(handle), lock.stat()
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                return handle
        except BlockingIOError:
            note = os.pread(handle, 4096, 0)
            os.close(handle)
            raise BlockingIOError(_in_use(target, note)) from None
        except FileNotFoundError:  # its holder removed it between our two steps
            pass
        except OSError as error:
            os.close(handle)
            if error.errno not in _NO_LOCKS:
                raise
            logger.warning("%s cannot be locked on this file system: let no second process write there.", target)
            return None
        os.close(handle)


def _in_use(target: Path, note: bytes) -> str:
    try:
        who = json.loads(note)
        holder = f"process {who['pid']} on {who['host']}, since {who['since']}"
        doing = who["doing"]
    except (ValueError, KeyError, TypeError):
        holder, doing = "another process", "written"
    return f"{target} is being {doing} by {holder}. Wait until it ends, or choose another folder."


def _forget_locks() -> None:
    """A forked child holds no lock: its copies of the open files would keep the parent's alive."""
    for handle in _handles.values():
        with suppress(OSError):
            os.close(handle)
    _held.clear()
    _handles.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


def _names(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Final name, links followed, and the draft's; both in one folder."""
    target = Path(os.path.realpath(path))
    return target, target.with_name(f"{DRAFT}{secrets.token_hex(4)}-{target.name[-200:]}")


def _swap(a: Path, b: Path) -> bool:
    """Swap two names in one step; false where the system cannot."""
    call = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call is not None and call(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0


def _exists(path: Path) -> FileExistsError:
    msg = f"{path} exists already: name another, or pass overwrite=True."
    return FileExistsError(msg)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _FULL or not path.is_dir():  # some file systems know no fsync of folders
            raise
    finally:
        os.close(handle)
