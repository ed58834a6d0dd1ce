"""Values and gradients of a phase: as they are, through compiled networks, or replayed as a CUDA graph."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from sst._settings import logger

from . import _compile

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ._compile import Plan
    from ._data import Batch
    from ._phases import Phase, Task

    Values = tuple[
        tuple[str, ...], Tensor
    ]  # names, and the numbers behind one another; gradients are in the parameters

STATIC = ("images", "expression", "labels", "other", "other_same")
TOLERANCE = 0.02  # of a replay against the same step as it is: nothing differs but the order of sums


@dataclass
class _Recording:
    """A phase on its way into a graph."""

    runs: int = 0
    refused: bool = False
    replay: Callable[[], None] | None = None
    names: tuple[str, ...] = ()
    values: Any = None
    gradients: list[Tensor | None] = field(default_factory=list)


class Gradients:
    """Runs the phases of a task; whatever of a plan fails is said once and left out, and the step repeated without it.

    Parameters
    ----------
    task
        What is trained.
    plan
        What to use.
    run
        Runs a phase on a batch as it is: leaves the gradients in the parameters that the phase trains and returns the recorded
        values, or ``None`` for a phase that skips the batch.
    device
        Where.
    """

    def __init__(
        self, task: Task, plan: Plan, run: Callable[[Phase, Batch], Values | None], device: torch.device
    ) -> None:
        self.task, self.run, self.device = task, run, device
        self.networks = plan.networks and task.compile is not None
        self.graphs = plan.graphs and task.recordable
        self._known: set[str] = set()  # phases that ran compiled, forward and backward
        self._recordings: dict[str, _Recording] = {}
        self._batch: Batch | None = None
        self._pool: Any = None
        if self.networks and task.compile:
            task.compile(_compile.compiled)

    def __call__(self, phase: Phase, batch: Batch) -> Values | None:
        """Values and gradients of one step."""
        if self.graphs:
            return self._recorded(phase, self._held(batch))
        return self._tried(phase, batch)

    def _tried(self, phase: Phase, batch: Batch) -> Values | None:
        """A step, as it is if it fails compiled (the backward pass is compiled in the first step)."""
        if not self.networks or phase.name in self._known:
            return self.run(phase, batch)
        before = self._state(batch)
        try:
            found = self.run(phase, batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, the step itself decides
            self._give_up("torch.compile", error)
            self._restore(batch, before)
            return self.run(phase, batch)
        self._known.add(phase.name)
        return found

    def _held(self, batch: Batch) -> Batch:
        """The batch in the tensors that graphs read."""
        if self._batch is None:
            copies = {name: getattr(batch, name).clone() for name in STATIC}
            self._batch = dataclasses.replace(batch, **copies)
        elif self._batch.iteration != batch.iteration:
            torch._foreach_copy_([getattr(self._batch, n) for n in STATIC], [getattr(batch, n) for n in STATIC])
            self._batch.iteration, self._batch.index = batch.iteration, batch.index
        return self._batch

    def _recorded(self, phase: Phase, batch: Batch) -> Values | None:
        kept = self._recordings.setdefault(phase.name, _Recording())
        if kept.replay is not None:
            kept.replay()
            for parameter, gradient in zip(self.task.trained(phase), kept.gradients, strict=True):
                parameter.grad = gradient
            return kept.names, kept.values
        if kept.refused or kept.runs < _compile.WARM_UP:
            with _compile.aside(self.device):
                found = self._tried(phase, batch)
            kept.runs += 1
            kept.refused |= found is None
            return found
        return self._record(phase, batch, kept)

    def _record(self, phase: Phase, batch: Batch, kept: _Recording) -> Values | None:
        """Record a phase, and compare its first replay with the step as it is."""
        parameters = self.task.trained(phase)
        before = self._state(batch)
        with _compile.aside(self.device):
            found = self.run(phase, batch)
        if found is None:
            kept.refused = True
            return None
        after, gradients = self._state(batch), [p.grad for p in parameters]
        error: Exception | None = None
        try:
            self._restore(batch, before)
            recorded, replay, self._pool = _compile.record(
                lambda: self.run(phase, batch), self.device, [batch.draws.generator], self._pool
            )
            self._restore(batch, before)
            replay()
            kept.names, kept.values = recorded  # type: ignore[misc]
            kept.gradients = [p.grad for p in parameters]
            if (
                kept.names == found[0]
                and _agree(kept.values, found[1])
                and _agree(*map(_norm, (kept.gradients, gradients)))
            ):
                kept.replay = replay
                return kept.names, kept.values
        except Exception as raised:  # noqa: BLE001 - the step itself went well
            error = raised
        self._give_up("CUDA graphs", error or f"phase {phase.name} comes out differently when replayed")
        with suppress(Exception):
            _compile.forget([batch.draws.generator], self.device)
        self._restore(batch, after)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        return found

    def _give_up(self, what: str, why: Exception | str) -> None:
        lines = str(why).strip().splitlines() or [type(why).__name__]
        logger.warning("%s cannot be used here, training goes on without: %s", what, lines[0])
        logger.debug("%s", why, exc_info=why if isinstance(why, Exception) else None)
        if what == "torch.compile":
            self.networks = False
            if self.task.compile:
                self.task.compile(None)
        else:
            self.graphs = False
            self._recordings.clear()

    def _state(self, batch: Batch) -> tuple[Any, ...]:
        """What a step changes besides gradients: generators, and the modules' buffers."""
        buffers = [b for m in self.task.modules.values() for b in m.buffers()]
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return batch.draws.generator.get_state(), torch.get_rng_state(), cuda, buffers, [b.clone() for b in buffers]

    @torch.no_grad()
    def _restore(self, batch: Batch, state: tuple[Any, ...]) -> None:
        drawn, host, cuda, buffers, values = state
        batch.draws.generator.set_state(drawn)
        torch.set_rng_state(host)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self.device)
        for buffer, value in zip(buffers, values, strict=True):
            buffer.copy_(value)


def _norm(gradients: list[Tensor | None]) -> Tensor:
    """Length of each gradient there is."""
    return torch.stack(torch._foreach_norm([g for g in gradients if g is not None])).double()


def _agree(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(
        a, b, rtol=TOLERANCE, atol=TOLERANCE * max(float(b.abs().max()), 1e-12), equal_nan=True
    )
