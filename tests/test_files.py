"""Whole files, whole folders, one writer."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sst import _files
from sst._files import (
    locked,
    new_file,
    new_folder,
    read_json,
    remove_leftovers,
    replace_folder,
    scratch_folder,
    write_json,
    write_text,
)


def child(code: str, *arguments: object) -> subprocess.Popen:
    """A process that runs ``code`` and answers on its standard output."""
    root = str(Path(_files.__file__).parents[1])
    script = (
        f"import sys, time; sys.path.insert(0, {root!r}); from pathlib import Path; from sst._files import *\n{code}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


def names(folder: Path) -> list[str]:
    """What a folder holds."""
    return sorted(p.name for p in folder.iterdir())


def killed(code: str, *arguments: object) -> None:
    """Run ``code`` in a process that is killed once it says where it is."""
    process = child(code + "\nprint('there', flush=True); time.sleep(60)", *arguments)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_file_is_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "note.json"
    write_json(path, {"a": 1})
    with new_file(path) as draft:
        draft.write_text("half of")
        assert draft.parent == path.parent
        assert draft.suffix == ".json"
        assert read_json(path) == {"a": 1}
        draft.write_text('{"a": 2}')
    assert read_json(path) == {"a": 2}
    assert names(path.parent) == ["note.json"]


def test_after_an_error_the_old_file_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with pytest.raises(FileNotFoundError), new_file(path) as draft:
        draft.write_text(draft.with_name("nowhere").read_text())
    assert path.read_text() == "old"
    assert names(tmp_path) == ["note.txt"]


def test_a_long_name_and_a_link(tmp_path: Path) -> None:
    write_text(tmp_path / ("x" * 251 + ".txt"), "long")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_text(tmp_path / "link", "there")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "there"


def test_a_file_without_content_is_named(tmp_path: Path) -> None:
    (tmp_path / "done.json").touch()
    with pytest.raises(ValueError, match=r"done\.json is damaged: 0 bytes"):
        read_json(tmp_path / "done.json")


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "no"), RuntimeError("I/O error: No space left on device (os error 28)")]
)
def test_a_full_disk_names_the_path(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device: .*w\.safetensors") as caught,
        new_file(tmp_path / "w.safetensors"),
    ):
        raise error
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == []


def test_a_folder_is_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with new_folder(path) as draft:
        (draft / "inner").mkdir()
        write_text(draft / "inner" / "a", "1")
        assert not path.exists()
    with pytest.raises(FileExistsError, match="store exists"), new_folder(path):
        pass
    with new_folder(path, overwrite=True) as draft:
        write_text(draft / "b", "2")
        assert (path / "inner" / "a").read_text() == "1"
    assert names(path) == ["b"]
    assert names(tmp_path) == ["store"]


@pytest.mark.parametrize("swaps", [True, False])
def test_folders_change_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, swaps: bool) -> None:
    if not swaps:
        monkeypatch.setattr(_files, "_swap", lambda *_: False)
    for name in ("new", "old"):
        write_text(tmp_path / name / "which", name)
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "which").read_text() == "new"
    assert names(tmp_path) == ["old"]


def test_killed_while_writing(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    killed(
        "with new_file(sys.argv[1]) as d:\n  d.write_text('new'); print('there', flush=True); time.sleep(60)",
        tmp_path / "a.txt",
    )
    killed(
        "with new_folder(sys.argv[1]) as d:\n  (d / 'x').touch(); print('there', flush=True); time.sleep(60)",
        tmp_path / "f",
    )
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(names(tmp_path)) == 3
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a.txt"]


def test_killed_between_two_renames_the_old_folder_comes_back(tmp_path: Path) -> None:
    write_text(tmp_path / ".old-0123abcd-store" / "which", "old")
    remove_leftovers(tmp_path)
    assert (tmp_path / "store" / "which").read_text() == "old"


def test_a_lock_says_who_has_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    other = child("with locked(sys.argv[1], 'trained'):\n  print('there', flush=True); sys.stdin.read()", run)
    assert other.stdout is not None
    assert other.stdout.readline() == "there\n"
    with (
        pytest.raises(BlockingIOError, match=rf"run is being trained by process {other.pid} on .*, since 20"),
        locked(run),
    ):
        pass
    other.kill()
    other.wait()
    with locked(run):  # released by the system
        pass
    assert names(tmp_path) == []


def test_a_lock_is_the_threads(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def other() -> None:
        try:
            with locked(tmp_path / "run"):
                pass
        except BlockingIOError as error:
            errors.append(error)

    with locked(tmp_path / "run"), locked(tmp_path / "run"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(errors) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    holder = child(
        # the child speaks: the parent may go on before the child has let go
        "import os\nwith locked(sys.argv[1]):\n  if os.fork() == 0:\n    print('there', flush=True); time.sleep(60)\n  sys.stdin.read()",
        tmp_path / "run",
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "there\n"
    holder.kill()
    holder.wait()
    with locked(tmp_path / "run"):
        pass


def test_scratch_of_the_dead_is_removed(tmp_path: Path) -> None:
    killed(
        "with scratch_folder(sys.argv[1]) as d:\n  (d / 'x').touch(); print('there', flush=True); time.sleep(60)",
        tmp_path,
    )
    (dead,) = tmp_path.glob("sst-*")
    with scratch_folder(tmp_path) as mine:
        assert not dead.exists()
        with scratch_folder(tmp_path) as inner:
            assert mine.exists()
            assert inner.exists()
    assert names(tmp_path) == []
