"""Who draws the blocks of a call: one model, a copy of it on each of several devices, or the workers of a dask client."""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sst._settings import logger
from sst._validate import check_range

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from anndata import AnnData

    Make = Callable[..., dict[str, np.ndarray]]  # (model, cells, **options of its generate) -> name -> what is drawn
    Read = Callable[[int, int], "Block"]
    Blocks = list[tuple[int, int]]

_MOST = 64  # devices of a machine
_ONE = threading.Lock()  # in a worker's process: a model's networks use its cores, or its GPU, by themselves


class Block:
    """Some cells, with all that image models read of them; their crops may still be on disk."""

    def __init__(self, part: AnnData, key: str, reader: Any, rows: np.ndarray) -> None:
        self.part, self.key, self.reader, self.rows = part, key, reader, rows

    def whole(self) -> AnnData:
        """The cells, crops included."""
        if self.reader is not None:
            self.part.obsm[self.key] = self.reader.take(self.rows)
        return self.part


def find_devices(devices: int | str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The devices that ``devices=`` names, in order; ``None``: where the model is.

    Raises
    ------
    TypeError
        It is neither a number nor names.
    ValueError
        An unknown device, or one that this machine does not have.
    """
    if devices is None:
        return None
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if isinstance(devices, int | np.integer) and not isinstance(devices, bool):
        count = int(check_range("devices", devices, low=1, high=_MOST))
        names = [f"cuda:{k}" if there else "cpu" for k in range(count)]
    elif isinstance(devices, str):
        names = [devices]
    else:
        names = list(devices) if isinstance(devices, list | tuple) else [devices]  # type: ignore[list-item]
    if not names or not all(isinstance(name, str) for name in names):
        msg = f"devices={devices!r}: expected a number of devices, or names such as ['cuda:0', 'cuda:1']."
        raise (TypeError if names else ValueError)(msg)
    for name in names:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            msg = f"devices: {name!r} is no device of torch ({str(error).splitlines()[0]})."
            raise ValueError(msg) from error
        if device.type == "cuda" and (device.index or 0) >= there:
            msg = f"devices={devices!r}, but this machine has {there} GPU(s)."
            raise ValueError(msg)
    return tuple(names)


def draw_here(model: Any, devices: Sequence[str] | None, make: Make, read: Read) -> Callable[[Blocks], Generator]:
    """Draw blocks in this process: the next is read, and the one before is taken by the caller, while one is drawn on each device.

    The model itself goes to the first device, copies of it to the others.
    """
    models = [model]
    if devices is not None:
        models += [copy.deepcopy(model) for _ in devices[1:]]
        for one, device in zip(models, devices, strict=True):
            one.to(device)

    def draw(blocks: Blocks) -> Generator[dict[str, np.ndarray]]:
        free: SimpleQueue = SimpleQueue()
        for one in models:
            free.put(one)
        busy: list[float] = []

        def work(block: Future) -> dict[str, np.ndarray]:
            mine = free.get()
            try:
                part = block.result()
                start = time.perf_counter()
                made = make(mine, part.whole(), progress=False)
                busy.append(time.perf_counter() - start)
                return made
            finally:
                free.put(mine)

        start, cells = time.perf_counter(), sum(b - a for a, b in blocks)
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(len(models)) as drawers:
            yield from in_order(blocks, lambda a, b: drawers.submit(work, reader.submit(read, a, b)), len(models) + 1)
        seconds = time.perf_counter() - start
        if cells:
            waited = 1 - sum(busy) / (seconds * len(models))
            logger.info("drew %d cells, %.0f a second, %.1f %% of it waiting", cells, cells / seconds, 100 * waited)

    return draw


def draw_there(client: Any, model: Any, make: Make, read: Read) -> Callable[[Blocks], Generator]:
    """Draw blocks with the workers of a ``dask.distributed`` client, each on the device that it finds; crops of a store they read themselves."""

    def draw(blocks: Blocks) -> Generator[dict[str, np.ndarray]]:
        if not blocks:
            return
        logger.info("drawing %d blocks on %s", len(blocks), client)
        apart = copy.deepcopy(model)
        apart.to("cpu")  # a worker may have no GPU
        shared = client.scatter(apart, broadcast=True, hash=False)
        most = 2 * max(sum(client.nthreads().values()), 1)
        yield from in_order(blocks, lambda a, b: client.submit(_draw_block, make, shared, read(a, b), pure=False), most)

    return draw


def _draw_block(make: Make, model: Any, block: Block) -> dict[str, np.ndarray]:
    with _ONE:
        model.to(None)
        return make(model, block.whole(), progress=False)


def in_order(blocks: Blocks, submit: Callable[[int, int], Any], most: int) -> Iterator[dict[str, np.ndarray]]:
    """What ``submit(a, b)`` promises for each block, in order; at most ``most`` promises are open at a time."""
    ahead: deque = deque()
    try:
        for block in blocks:
            ahead.append(submit(*block))
            if len(ahead) >= most:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for promise in ahead:
            promise.cancel()
