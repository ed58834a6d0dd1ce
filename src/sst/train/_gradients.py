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
    from ._draws import Batch
    from ._phases import Phase, Task

    Values = tuple[tuple[str, ...], Tensor]  # names, and the numbers behind one another

STATIC = ("images", "expression", "labels", "other", "other_labels", "progress", "slides", "distant")
# Largest difference of a step from the same step as it is, relative: nothing differs but the order of sums and roundings.
TOLERANCE = {"fp32": 0.01, "tf32": 0.05, "bf16": 0.15, "fp16": 0.15}


@dataclass
class _Recording:
    """A phase on its way into a graph."""

    runs: int = 0
    refused: bool = False
    replay: Callable[[], None] | None = None
    names: tuple[str, ...] = ()
    values: Any = None
    gradients: list[Tensor | None] = field(default_factory=list)


@dataclass
class _Truth:
    """A step as it is: what it found, its gradients, and the state before and after."""

    found: Values
    gradients: list[Tensor | None]
    before: tuple[Any, ...]
    after: tuple[Any, ...]


class Gradients:
    """Runs the phases of a task.

    Compiled networks and recorded graphs must show what they do: the first step of a phase with either is done without it too, and
    that result is used. What fails or comes out differently is said once and left out from then on.

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
    precision
        Of the run; decides what counts as equal.
    """

    def __init__(
        self,
        task: Task,
        plan: Plan,
        run: Callable[[Phase, Batch], Values | None],
        device: torch.device,
        precision: str = "fp32",
    ) -> None:
        self.task, self.run, self.device = task, run, device
        self.tolerance = TOLERANCE[precision]
        self.networks = plan.networks and task.compile is not None
        self.graphs = plan.graphs and task.recordable
        self._known: set[str] = set()  # phases that were compared
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
        """A step; the first one of a phase through compiled networks is compared with the same step as it is."""
        if not self.networks or phase.name in self._known or not self.task.compile:
            return self.run(phase, batch)
        self._known.add(phase.name)
        truth = self._as_it_is(phase, batch)
        if truth is None:
            return None
        why = self._compare(phase, batch, truth, lambda: self.run(phase, batch))
        if why is not None:
            self._give_up("torch.compile", why)
        return truth.found

    def _as_it_is(self, phase: Phase, batch: Batch) -> _Truth | None:
        """A step without anything of the plan, and the state before and after it."""
        before = self._state(batch)
        if self.networks and self.task.compile:
            self.task.compile(None)
        try:
            found = self.run(phase, batch)
        finally:
            if self.networks and self.task.compile:
                self.task.compile(_compile.compiled)
        if found is None:
            return None
        return _Truth(found, [p.grad for p in self.task.trained(phase)], before, self._state(batch))

    def _compare(
        self, phase: Phase, batch: Batch, truth: _Truth, other: Callable[[], Values | None]
    ) -> Exception | str | None:
        """Why another way to do a step cannot be used (``None``: it can); leaves everything as after the true step."""
        parameters = self.task.trained(phase)
        self._restore(batch, truth.before)
        why: Exception | str | None = None
        try:
            found = other()
            if found is None or found[0] != truth.found[0] or not _agree(found[1], truth.found[1], self.tolerance):
                why = f"the losses of phase {phase.name} come out differently"
            elif not _same_gradients([p.grad for p in parameters], truth.gradients, self.tolerance):
                why = f"the gradients of phase {phase.name} come out differently"
        except Exception as error:  # noqa: BLE001 - the step itself went well
            why = error
        self._restore(batch, truth.after)
        for parameter, gradient in zip(parameters, truth.gradients, strict=True):
            parameter.grad = gradient
        return why

    def _held(self, batch: Batch) -> Batch:
        """The batch in the tensors that graphs read."""
        if self._batch is None:
            copies: dict[str, Any] = {name: tensor.clone() for name, tensor in _static(batch).items()}
            self._batch = dataclasses.replace(batch, **copies)
        elif self._batch.iteration != batch.iteration:
            torch._foreach_copy_(list(_static(self._batch).values()), list(_static(batch).values()))
            self._batch.iteration, self._batch.index, self._batch.done = batch.iteration, batch.index, batch.done
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
        with _compile.aside(self.device):
            truth = self._as_it_is(phase, batch)
        if truth is None:
            kept.refused = True
            return None

        def replayed() -> Values | None:
            found, kept.replay, self._pool = _compile.record(
                lambda: self.run(phase, batch), self.device, [batch.draws.generator], self._pool
            )
            if found is None:
                return None
            kept.names, kept.values = found
            kept.gradients = [p.grad for p in parameters]
            self._restore(batch, truth.before)
            kept.replay()
            return found

        why = self._compare(phase, batch, truth, replayed)
        if why is not None:
            self._give_up("CUDA graphs", why)
            with suppress(Exception):
                _compile.forget([batch.draws.generator], self.device)
        return truth.found

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


def _agree(a: Tensor, b: Tensor, tolerance: float) -> bool:
    size = max(float(b.abs().max()), 1e-12)
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True)


def _same_gradients(found: list[Tensor | None], true: list[Tensor | None], tolerance: float) -> bool:
    """Whether the same parameters have gradients, and their differences are small beside all gradients and beside their own."""
    if [g is None for g in found] != [g is None for g in true]:
        return False
    mine, theirs = ([g for g in gradients if g is not None] for gradients in (found, true))
    size = torch.stack(torch._foreach_norm(theirs)).double()
    gap = torch.stack(torch._foreach_norm(torch._foreach_sub(mine, theirs))).double()
    whole = size.norm()
    if not bool(whole.isfinite()):
        return True  # there is no truth to compare with; that the run diverges is said elsewhere
    return bool((gap <= tolerance * whole).all()) and bool((gap <= 5 * tolerance * size + 1e-3 * whole).all())


def _static(batch: Batch) -> dict[str, Tensor]:
    """What graphs read of a batch: its tensors, those that it has."""
    return {name: tensor for name in STATIC if (tensor := getattr(batch, name)) is not None}
