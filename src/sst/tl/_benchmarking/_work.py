"""A benchmark's pieces of work: each is done once, by whichever process comes to it first, and kept."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from sst._files import locked
from sst._settings import logger, settings
from sst.tl._measuring import FeatureReader
from sst.train import from_dict, to_dict

from ._cells import make_cells
from ._measure import NO_EDIT, Measured, MeasuredSet
from ._methods import METHODS, Limit, Place, features_of
from ._record import Found, code, hash_cells, read_measured, write_measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from sst.models import Model

    from ._cells import BenchmarkCells

PAUSE = 0.5  # seconds between looks at what the others have finished
GRACE = 10.0  # seconds that a helper has to end
_BOOT = (  # last on the path: where this package lies, for a caller that found it by a path of its own
    "import sys; sys.path.append(sys.argv[1]); from sst.tl._benchmarking._work import help_out; help_out()"
)


@dataclass(frozen=True)
class Plan:
    """What is benchmarked, and where its results lie; the arguments are those of :func:`sst.tl.benchmark`."""

    folder: str
    preset: str
    methods: tuple[str, ...]
    seeds: int
    limit: Limit
    latent: tuple[bool, ...]
    sets: tuple[str, ...] | None
    n_cells: int | None
    n_test: int
    show: int
    tissue_seed: int
    level: float
    n_resamples: int


@dataclass(frozen=True)
class _Piece:
    """A model to train (``seed``), or a gene set to measure with every method."""

    name: str
    method: str = ""
    seed: int = 0


class Work:
    """The pieces of a plan, in this process.

    Parameters
    ----------
    plan
        What is benchmarked.

    Raises
    ------
    ValueError
        The folder holds models of other cells or settings.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.folder = plan, Path(plan.folder)
        cells = {"seed": plan.tissue_seed, "n_cells": plan.n_cells, "n_test": plan.n_test, "sets": plan.sets}
        self.cells: BenchmarkCells = make_cells(plan.preset, **cells)  # type: ignore[arg-type]
        mine = hash_cells(self.cells.adata)
        (self.folder / "models").mkdir(parents=True, exist_ok=True)
        self.places = {
            method: [
                Place(self.folder / "models", method, seed, mine, plan.limit)
                for seed in range(1 if METHODS[method].seedless else plan.seeds)
            ]
            for method in plan.methods
        }
        for place in self.every_place:
            note = place.note()
            if note is not None and note["code"] != code():
                logger.warning(
                    "%s was trained by other code (%s, this is %s); it is kept: remove %s* to train it anew.",
                    *(place.name, note["code"], code(), place.path),
                )
        self._models: dict[str, list[Model]] = {}

    @property
    def every_place(self) -> list[Place]:
        """All models' places."""
        return [place for places in self.places.values() for place in places]

    def do(self, *, show_progress: bool = False) -> None:
        """Train and measure what nobody has, until all is there."""
        trained = sorted(self.every_place, key=lambda place: METHODS[place.method].seedless)  # the long ones first
        left = [_Piece(p.name, p.method, p.seed) for p in trained]
        left += [_Piece(name) for name in self.cells.sets]
        with tqdm(total=len(left), desc="benchmark", unit="piece", disable=not show_progress) as bar:
            while left:
                before = len(left)
                for piece in list(left):
                    bar.set_postfix_str(piece.name)
                    if self._is_done(piece) or (self._is_ready(piece) and self._try(piece)):
                        left.remove(piece)
                        bar.update()
                if len(left) == before:
                    bar.set_postfix_str("others are busy with " + ", ".join(p.name for p in left[:3]))
                    time.sleep(PAUSE)

    def measured(self, name: str, method: str) -> tuple[Found, dict[str, np.ndarray], str] | None:
        """What was measured of a gene set with a method, its pictures, and by which code; ``None``: not yet."""
        return read_measured(self._file(name, method), self._made_of(name, method))

    def notes(self, method: str) -> list[dict[str, Any]]:
        """What is noted of a method's models, as far as they are there."""
        return [note for place in self.places.get(method, []) if (note := place.note()) is not None]

    def _is_ready(self, piece: _Piece) -> bool:
        return bool(piece.method) or all(len(self.notes(m)) == len(places) for m, places in self.places.items())

    def _is_done(self, piece: _Piece) -> bool:
        if piece.method:
            return self.places[piece.method][piece.seed].note() is not None
        return self._is_ready(piece) and not self._missing(piece.name)

    def _missing(self, name: str) -> list[str]:
        return [method for method in (NO_EDIT, *self.places) if self.measured(name, method) is None]

    def _try(self, piece: _Piece) -> bool:
        """Do a piece, unless another process is at it."""
        where = self.folder / "models" / piece.name if piece.method else self.folder / "measured" / piece.name
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(where.with_name(f"{piece.name}-work"), "made"))
            except BlockingIOError:
                return False
            if not self._is_done(piece):
                if piece.method:
                    self.places[piece.method][piece.seed].make(self.cells.adata)
                else:
                    self._measure(piece.name)
        return True

    def _measure(self, name: str) -> None:
        plan, missing = self.plan, self._missing(name)
        options = {"level": plan.level, "n_resamples": plan.n_resamples, "seed": 0}
        found = MeasuredSet(self._measured, name, show=plan.show, **options)
        for method in missing:
            if method == NO_EDIT:
                rows, pictures = found.no_edit()
                reliability = found.reliability
            else:
                rows, pictures = found.method(method, self._loaded(method), latent=plan.latent)
                reliability = {}
            kept = {"rows": rows, "reliability": reliability}
            write_measured(self._file(name, method), self._made_of(name, method), kept, pictures)
            logger.info("%s: measured %s", name, method)

    @cached_property
    def _measured(self) -> Measured:
        return Measured(self.cells, FeatureReader(self.cells.adata, features_of(self.cells.adata)))

    def _loaded(self, method: str) -> list[Model]:
        if method not in self._models:
            places = self.places[method]
            self._models[method] = [p.load(n) for p, n in zip(places, self.notes(method), strict=True)]
        return self._models[method]

    def _file(self, name: str, method: str) -> Path:
        return self.folder / "measured" / f"{name}-{method.replace(' ', '_')}.npz"

    def _made_of(self, name: str, method: str) -> dict[str, Any]:
        plan = self.plan
        about: dict[str, Any] = {"cells": self.every_place[0].cells, "genes": self.cells.sets[name]}
        about |= {"show": plan.show, "level": plan.level, "n_resamples": plan.n_resamples}
        about["models"] = [note["hash"] for note in self.notes(method)]
        return about | ({} if method == NO_EDIT else {"latent": list(plan.latent)})


@contextmanager
def helpers(plan: Plan, count: int) -> Iterator[None]:
    """Have other processes do pieces of the same plan meanwhile; they end when the block, or this process, ends.

    One that fails says so, and its piece is left for this process, which then fails in its own words.
    """
    started: list[subprocess.Popen[bytes]] = []
    threads = torch.get_num_threads()
    share = max(1, threads // (count + 1))
    state = {"level": logging.getLogger("sst").getEffectiveLevel(), "device": settings.device, "plan": to_dict(plan)}
    try:
        torch.set_num_threads(share if count else threads)
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(Path(__file__).parents[3])],
                env={**os.environ, "OMP_NUM_THREADS": str(share)},
                stdin=subprocess.PIPE,  # closed when this process ends, however it ends: then the helper ends too
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches this process alone
            )
            started.append(process)
            process.stdin.write(json.dumps(state).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        yield
    finally:
        torch.set_num_threads(threads)
        for process in started:
            process.stdin.close()  # type: ignore[union-attr]
        for process in started:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def help_out() -> None:
    """What a helper does: read the plan from standard input, and work until all is done or whoever started it has ended."""
    state = json.loads(sys.stdin.buffer.readline())
    settings.progress, settings.device = False, state["device"]
    logging.basicConfig(format="%(message)s")
    logging.getLogger("sst").setLevel(state["level"])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        Work(from_dict(Plan, state["plan"])).do()
    except Exception as error:  # noqa: BLE001 - whoever started it comes to the same piece
        logger.warning("a helper ended: %s: %s", type(error).__name__, error)
        os._exit(1)
    os._exit(0)


def _end_with_parent() -> None:
    sys.stdin.buffer.read(1)  # nothing more is written there: this returns when the other end is closed
    os._exit(1)
