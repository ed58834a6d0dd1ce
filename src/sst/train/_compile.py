"""``torch.compile`` and CUDA graphs: what a run may use, and how a step is recorded.

The benchmark (``benchmarks/bench_training.py``) takes both from here, so that what is measured is what trains.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from sst._settings import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

BACKEND = "inductor"
LONG = 5_000  # iterations that repay a minute or two of compiling
WARM_UP = 3  # runs of a step before it is recorded


@dataclass(frozen=True)
class Plan:
    """What a run uses.

    Attributes
    ----------
    networks
        Compiled networks in the phases that differentiate once.
    graphs
        Every phase recorded as a CUDA graph.
    """

    networks: bool = False
    graphs: bool = False


def plan(setting: str, device: torch.device, *, iterations: int, world: int = 1, deterministic: bool = False) -> Plan:
    """What ``FitConfig.compile`` means for a run of so many iterations on a device, shared by ``world`` processes.

    Graphs need a GPU, and a process of its own: losses that average over processes while they run cannot be recorded safely.
    """
    cuda = device.type == "cuda"
    if setting == "auto":
        if not cuda or deterministic:
            return Plan()
        triton = importlib.util.find_spec("triton") is not None
        return Plan(networks=triton and iterations >= LONG, graphs=world == 1)
    wanted = Plan(networks=setting in {"on", "both"}, graphs=setting in {"graphs", "both"})
    if wanted.graphs and not (cuda and world == 1):
        why = f"{world} processes share the batch" if cuda else f"this run is on a {device.type.upper()}"
        logger.warning("compile=%r: CUDA graphs are left out, because %s.", setting, why)
        return Plan(networks=wanted.networks)
    return wanted


def compiled(call: Callable[..., Any]) -> Callable[..., Any]:
    """A callable through ``torch.compile``, for the shapes that it is called with; compiled when first called, and backward."""
    return torch.compile(call, backend=BACKEND, dynamic=False)


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """Run on a stream of its own, as a step must before it is recorded, between what came before and what follows."""
    if device.type != "cuda":
        yield
        return
    main, stream = torch.cuda.current_stream(device), _stream(device)
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        yield
    main.wait_stream(stream)


def record(
    call: Callable[[], T], device: torch.device, generators: Iterable[torch.Generator] = (), pool: Any = None
) -> tuple[T, Callable[[], None], Any]:
    """Record the work that a call gives to the GPU; nothing runs yet.

    Parameters
    ----------
    call
        Reads tensors that stay where they are, and never waits for the GPU. Run it a few times within :func:`aside` first.
    device
        The GPU.
    generators
        Generators that it draws from besides the default one; each replay goes on from the state that they then have.
    pool
        Memory pool of an earlier recording, to share what is needed only while a step runs.

    Returns
    -------
    What the call returned (tensors that every replay writes anew), the replay, and the memory pool.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    # this thread alone is watched: another one may be loading crops
    with torch.cuda.graph(graph, pool=pool, stream=_stream(device), capture_error_mode="thread_local"):
        found = call()
    return found, graph.replay, graph.pool()


def forget(generators: Iterable[torch.Generator], device: torch.device) -> None:
    """Give generators a new state after a recording that failed: theirs may still take itself for recorded."""
    for generator in (*generators, torch.cuda.default_generators[device.index or 0]):
        fresh = torch.Generator(device)
        fresh.set_state(generator.get_state())
        generator.graphsafe_set_state(fresh.graphsafe_get_state())


_STREAMS: dict[torch.device, Any] = {}


def _stream(device: torch.device) -> Any:
    if device not in _STREAMS:
        _STREAMS[device] = torch.cuda.Stream(device)
    return _STREAMS[device]
