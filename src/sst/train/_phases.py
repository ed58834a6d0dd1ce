"""What a training is made of: phases over modules and optimisers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sst._validate import check_choice, check_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy as np
    import torch
    from torch import Tensor, nn

    from ._draws import Batch


@dataclass(frozen=True)
class Phase:
    """One kind of step.

    Attributes
    ----------
    name
        What the metrics table calls it.
    loss
        Takes the iteration's :class:`Batch`, returns scalars by name; ``"loss"`` is minimised, all are recorded. ``None``
        instead of a dictionary skips the step.
    trains
        Names of the modules whose parameters get gradients; those of every other module are frozen meanwhile.
    optimizer
        Name of the optimiser that steps.
    interval
        The phase runs in iterations 0, ``interval``, 2 ``interval`` ...
    """

    name: str
    loss: Callable[[Batch], Mapping[str, Tensor] | None]
    trains: tuple[str, ...]
    optimizer: str
    interval: int = 1


@dataclass
class Task:
    """Everything that one training is about.

    Attributes
    ----------
    modules
        All networks, by name, trained or not; moved to the device. Those without a trained parameter are not saved in
        checkpoints. State that a loss carries along (a running mean) belongs in buffers of a module here.
    optimizers
        By name.
    phases
        Run in this order in every iteration.
    ema
        Names of modules of which a running average is kept (:attr:`averages`, filled by :func:`fit`).
    evaluate
        Called every ``evaluate_every`` iterations and at the end, on the first process; returns numbers by name.
        ``"distance"`` (smaller is better) decides which checkpoint is the best.
    on_evaluate
        Called with those numbers on every process, for instance to step a scheduler.
    rates
        Called before each iteration with the share of the run that is over, to set learning rates (a loss that a CUDA graph repeats cannot).
    samples
        Returns a grid (h x w or h x w x 3 uint8) that is saved as PNG every ``sample_every`` iterations.
    watch
        Called with the mean of every recorded scalar at each ``log_every``; returns sentences of warning.
    compile
        Given a function that compiles a callable, lets the losses use compiled networks where they are differentiated once; given
        ``None``, takes that back. ``None``: there is nothing to compile.
    recordable
        Whether a phase's work depends on nothing but the tensors of the batch, its ``draws`` and the modules, and never waits for the
        device, so that a CUDA graph may repeat it.
    stateful
        Objects with ``state_dict``/``load_state_dict`` of JSON values (schedulers) that checkpoints carry along.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    phases: list[Phase]
    ema: tuple[str, ...] = ()
    evaluate: Callable[[], dict[str, float]] | None = None
    on_evaluate: Callable[[dict[str, float]], None] | None = None
    rates: Callable[[float], None] | None = None
    samples: Callable[[], np.ndarray] | None = None
    watch: Callable[[dict[str, float]], list[str]] | None = None
    compile: Callable[[Callable[[Any], Any] | None], None] | None = None
    recordable: bool = False
    stateful: dict[str, Any] = field(default_factory=dict)
    averages: dict[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for phase in self.phases:
            check_choice(f"optimizer of phase {phase.name!r}", phase.optimizer, list(self.optimizers))
            check_range(f"interval of phase {phase.name!r}", phase.interval, low=1)
            for name in phase.trains:
                check_choice(f"module of phase {phase.name!r}", name, list(self.modules))
        for name in self.ema:
            check_choice("ema", name, list(self.modules))
        self._trainable = {
            name: [p for p in module.parameters() if p.requires_grad] for name, module in self.modules.items()
        }

    @property
    def saved(self) -> list[str]:
        """Names of the modules that a checkpoint must hold: with trained parameters, or with nothing but buffers."""
        return [
            name
            for name, module in self.modules.items()
            if self._trainable[name] or not any(True for _ in module.parameters())
        ]

    def trained(self, phase: Phase) -> list[nn.Parameter]:
        """The parameters that a phase may change."""
        return [p for name in phase.trains for p in self._trainable[name]]

    @contextmanager
    def only(self, phase: Phase) -> Iterator[None]:
        """Gradients for the phase's own modules alone."""
        for name, parameters in self._trainable.items():
            for parameter in parameters:
                parameter.requires_grad_(name in phase.trains)
        try:
            yield
        finally:
            for parameters in self._trainable.values():
                for parameter in parameters:
                    parameter.requires_grad_(True)  # noqa: FBT003
