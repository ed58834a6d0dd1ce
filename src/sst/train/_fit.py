"""One loop for every training: GAN, CLIP and inversion differ in their phases alone.

How to use it
-------------
Build a :class:`~sst.train.Task` (modules, optimisers, phases), a :class:`~sst.train.Cells` (crops, counts, groups) and a
:class:`~sst.train.FitConfig`, then call :func:`fit`::

    cells = Cells(images, counts, labels, rows=rows, config=DataConfig())


    def loss(batch):  # batch.images B x c x h x w in [-1, 1], batch.expression B x p counts, batch.labels B
        a, b = encoder(batch.images, batch.expression)
        return {"loss": clip_loss(a, b)}  # "loss" is minimised, the rest is recorded


    task = Task(
        modules={"encoder": encoder},
        optimizers={"encoder": torch.optim.AdamW(encoder.parameters(), lr=1e-3)},
        phases=[Phase("clip", loss, trains=("encoder",), optimizer="encoder")],
        evaluate=lambda: {"distance": held_out_loss()},  # decides which checkpoint is the best
    )
    result = fit(task, cells, FitConfig(iterations=1000), folder=out, seed=0, device=device)
    result.history  # DataFrame: iteration x ("clip/loss", "images_per_second", "seconds_waiting", "distance", ...)

Modules are trained in place; afterwards they hold the last iteration's weights, ``task.averages`` the running averages
(``task.ema`` names the modules), and ``Checkpoints(folder).load("best", ...)`` brings the best ones back. Build the task from the
same seed in every process: nothing else makes the first weights alike. Random numbers in losses come from ``batch.draws`` (shared
out over processes) or from the global generator (seeded anew for every iteration and process): so a resumed run needs no
stored generator to repeat the trajectory bit for bit, and processes with shares of a batch do what one with all of it does.

Devices, launch and collectives are Lightning Fabric's; start several processes with ``torchrun --nproc-per-node N``.
Gradients are averaged over the processes after each phase's backward pass, in one flat tensor, rather than through a wrapped
module: a wrapped one cannot be called twice in a loss or differentiated twice, as R1 and the path length ask.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sst._settings import settings

from ._checkpoint import Checkpoints
from ._compile import plan
from ._draws import mix
from ._ema import EMA
from ._gradients import Gradients
from ._memory import keep_freed_memory
from ._precision import resolve_precision
from ._watch import Watch, check_finite, read_history

if TYPE_CHECKING:
    import pandas as pd
    from lightning_fabric import Fabric
    from torch import Tensor

    from ._config import FitConfig
    from ._draws import Batch
    from ._loader import Cells
    from ._phases import Phase, Task


@dataclass
class FitResult:
    """What a training leaves behind.

    Attributes
    ----------
    iterations, seconds
        Done in all, earlier runs of the folder counted in; seconds by ``config.clock``.
    history
        One row a log or an evaluation.
    wait
        Share of the time that the loop waited for crops (of this run).
    best
        Folder of the best checkpoint, if there is one.
    """

    iterations: int
    seconds: float
    history: pd.DataFrame
    wait: float
    best: Path | None = None


def engine(config: FitConfig, device: torch.device) -> Fabric:
    """Lightning Fabric for this configuration; joins the processes that ``torchrun`` started."""
    from lightning_fabric import Fabric

    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if config.devices not in (0, world):
        msg = f"devices={config.devices}, but {world} process(es) were started: torchrun --nproc-per-node {config.devices} ..."
        raise ValueError(msg)
    if world > 1:
        fabric = Fabric(accelerator=device.type, devices=local, num_nodes=world // local, strategy="ddp")
    else:
        devices: Any = [device.index or 0] if device.type == "cuda" else 1
        fabric = Fabric(accelerator=device.type, devices=devices)
    fabric.launch()
    return fabric


def fit(
    task: Task,
    cells: Cells,
    config: FitConfig,
    *,
    folder: Path | str | None = None,
    resume: bool = True,
    seed: int = 0,
    device: torch.device | None = None,
    name: str = "training",
) -> FitResult:
    """Train ``task`` on ``cells``; see the top of this module.

    Parameters
    ----------
    task
        Modules, optimisers, phases.
    cells
        The training data.
    config
        How long, how watched.
    folder
        Where checkpoints, metrics and samples go (``None``: nowhere).
    resume
        Go on from the folder's last checkpoint, if it has one; otherwise the folder must hold none.
    seed
        Of the order of cells and all random numbers.
    device
        Defaults to :attr:`sst.settings.device`.
    name
        Shown by the progress bar.

    Raises
    ------
    FileExistsError
        ``resume=False`` and the folder holds checkpoints.
    TrainingDivergedError
        A loss is not a number.
    """
    fabric = engine(config, device or settings.torch_device())
    if fabric.device.type == "cpu":
        keep_freed_memory()
    with torch.random.fork_rng(devices=[fabric.device] if fabric.device.type == "cuda" else []):
        return _Run(fabric, task, cells, config, Path(folder) if folder else None, resume, seed, name).run()


AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
ASK_EVERY = 10  # iterations between questions whether the time is over that all processes must answer alike


class _Run:
    """The state of one call of :func:`fit`."""

    def __init__(
        self,
        fabric: Fabric,
        task: Task,
        cells: Cells,
        config: FitConfig,
        folder: Path | None,
        resume: bool,  # noqa: FBT001
        seed: int,
        name: str,
    ) -> None:
        self.fabric, self.task, self.config, self.seed = fabric, task, config, seed
        device = fabric.device
        self.checkpoints = Checkpoints(folder) if folder else None
        self.precision = precision = self._resolve_precision()
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        for module in task.modules.values():
            module.to(device)
        self.averages = {key: EMA(task.modules[key], config.ema_images, config.ema_rampup) for key in task.ema}
        task.averages.update({key: ema.module for key, ema in self.averages.items()})
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.loader = cells.loader(config.batch_size, seed, device, rank=fabric.global_rank, world=fabric.world_size)
        if fabric.world_size > 1:
            self.loader.draws.average = lambda value: fabric.all_reduce(value.clone(), reduce_op="mean")  # type: ignore[assignment, return-value]
        self.start, self.seconds, self.spent = 0, 0.0, 0.0  # spent: share of the time budget
        if self.checkpoints and self.checkpoints.path():
            if not resume:
                msg = f"{self.checkpoints.folder} holds checkpoints: resume=True goes on from them, or choose another folder."
                raise FileExistsError(msg)
            self._restore(self.checkpoints)
        self.watch = Watch(
            folder,
            config.iterations,
            self.start,
            active=fabric.is_global_zero,
            tensorboard=config.tensorboard,
            name=name,
        )
        self.folder = folder
        self.sums: dict[tuple[str, tuple[str, ...]], tuple[Tensor, int]] = {}  # by phase and names
        uses = plan(
            config.compile,
            device,
            iterations=config.iterations - self.start,
            world=fabric.world_size,
            deterministic=config.deterministic,
        )
        self.gradients = Gradients(task, uses, self._forward_backward, device, precision)

    def _resolve_precision(self) -> str:
        """That of the configuration; ``"auto"``: what the run had so far on such a device, else what the first process measures."""
        here, wanted = self.fabric.device, self.config.precision
        before = self.checkpoints.rest().get("precision") if self.checkpoints else None
        if wanted == "auto" and before is not None and before["device"] == here.type:
            return str(before["used"])
        found = resolve_precision(wanted, here) if self.fabric.is_global_zero else wanted
        return self.fabric.broadcast(found) if wanted == "auto" and self.fabric.world_size > 1 else found

    def _restore(self, checkpoints: Checkpoints) -> None:
        rest = checkpoints.load("last", self._saved, self.task.averages, self.task.optimizers)
        if rest is None:
            return
        if rest["seed"] != self.seed:
            msg = f"the run in {checkpoints.folder.parent} was started with seed={rest['seed']}, not {self.seed}."
            raise ValueError(msg)
        self.start, self.seconds = rest["iteration"], rest["seconds"]
        for key, value in rest["stateful"].items():
            self.task.stateful[key].load_state_dict(value)
        if rest["scaler"]:
            self.scaler.load_state_dict(rest["scaler"])

    @property
    def _saved(self) -> dict[str, torch.nn.Module]:
        return {key: self.task.modules[key] for key in self.task.saved}

    def run(self) -> FitResult:
        config, task = self.config, self.task
        deterministic = torch.are_deterministic_algorithms_enabled()
        if config.deterministic:
            torch.use_deterministic_algorithms(mode=True)
        began, earlier = time.perf_counter(), self.seconds
        clock = CLOCKS[config.clock]
        started = clock()
        mark, marked = began, self.start
        iteration, saved, evaluated, distance = self.start, self.start, -1, None
        try:
            over = self._out_of_time(iteration)
            while iteration < config.iterations and not over:
                self._iteration(iteration)
                iteration += 1
                for ema in self.averages.values():
                    ema.update(iteration * config.batch_size, config.batch_size)
                self.seconds = earlier + clock() - started
                self.watch.step()
                over = self._out_of_time(iteration)
                last = iteration == config.iterations or over
                if last or iteration % config.log_every == 0:
                    now = time.perf_counter()
                    speed = (iteration - marked) * config.batch_size / max(now - mark, 1e-9)
                    self._log(iteration, speed)
                    mark, marked = now, iteration
                if _due(iteration, config.sample_every, last=last) and task.samples and self.fabric.is_global_zero:
                    self.watch.samples(iteration, task.samples())
                if _due(iteration, config.evaluate_every, last=last) and task.evaluate:
                    distance, evaluated = self._evaluate(iteration), iteration
                if _due(iteration, config.checkpoint_every, last=last) or evaluated == iteration:
                    self._save(iteration, distance if evaluated == iteration else None)
                    saved = iteration
            if saved != iteration:
                self._save(iteration, None)
        finally:
            self.watch.close()
            torch.use_deterministic_algorithms(deterministic)
        spent = max(time.perf_counter() - began, 1e-9)
        best = self.checkpoints.path("best") if self.checkpoints else None
        history = read_history(self.folder) if self.folder else _pivot(self.watch.rows)
        return FitResult(iteration, self.seconds, history, self.loader.wait / spent, best)

    def _out_of_time(self, iteration: int) -> bool:
        """Whether the time budget is spent; of several processes the first decides for all, every few iterations."""
        if self.config.max_seconds is None:
            return False
        if self.fabric.world_size == 1:
            self.spent = self.seconds / self.config.max_seconds
        elif iteration % ASK_EVERY == 0 or iteration == self.start:
            self.spent = self.fabric.broadcast(self.seconds / self.config.max_seconds)
        return self.spent >= 1

    def _iteration(self, iteration: int) -> None:
        batch = self.loader.batch(iteration)
        batch.done = max(iteration / self.config.iterations, self.spent)
        batch.progress = torch.full((), batch.done, device=self.fabric.device)
        torch.manual_seed(mix(self.seed, iteration, self.fabric.global_rank + 1))
        if self.task.rates is not None:
            self.task.rates(batch.done)
        for phase in self.task.phases:
            if iteration % phase.interval == 0:
                self._phase(phase, batch)

    def _phase(self, phase: Phase, batch: Batch) -> None:
        found = self.gradients(phase, batch)
        if found is None:
            return
        parameters = self.task.trained(phase)
        self._share_gradients(parameters)
        self.scaler.step(self.task.optimizers[phase.optimizer])
        if self.scaler.is_enabled():
            self.scaler.update()
        for parameter in parameters:
            parameter.grad = None
        names, values = found
        if (phase.name, names) in self.sums:
            total, count = self.sums[phase.name, names]
            self.sums[phase.name, names] = (total.add_(values), count + 1)
        else:
            self.sums[phase.name, names] = (values.clone(), 1)  # the next replay of a graph overwrites them

    def _forward_backward(self, phase: Phase, batch: Batch) -> tuple[tuple[str, ...], Tensor] | None:
        """Run a phase: gradients into its parameters; names and numbers of what its loss recorded."""
        with self.task.only(phase):
            with self._autocast():
                values = phase.loss(batch)
            if values is None:
                return None
            for parameter in self.task.trained(phase):
                parameter.grad = None
            self.scaler.scale(values["loss"]).backward()
        return tuple(values), torch.stack([value.detach().float() for value in values.values()])

    def _autocast(self) -> torch.autocast:
        dtype = AUTOCAST.get(self.precision)
        return torch.autocast(self.fabric.device.type, dtype, enabled=dtype is not None)

    def _share_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """Mean of the gradients over the processes, in one flat tensor."""
        if self.fabric.world_size == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in grads])
        flat = self.fabric.all_reduce(flat, reduce_op="mean")  # type: ignore[assignment]
        for grad, piece in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(piece.view_as(grad))

    def _means(self) -> dict[str, float]:
        """Means since the last log, over the processes too: one transfer for all of them."""
        if not self.sums:
            return {}
        names = [f"{phase}/{name}" for phase, parts in self.sums for name in parts]
        means = torch.cat([total / count for total, count in self.sums.values()])
        self.sums.clear()
        if self.fabric.world_size > 1:
            means = self.fabric.all_reduce(means, reduce_op="mean")  # type: ignore[assignment]
        return dict(zip(names, means.tolist(), strict=True))

    def _log(self, iteration: int, speed: float) -> None:
        values = self._means()
        check_finite(iteration, values)
        if self.task.watch:
            for sentence in self.task.watch(values):
                self.watch.warn(sentence)
        wait = self.loader.wait
        self.watch.record(
            iteration, values | {"images_per_second": speed, "seconds": self.seconds, "seconds_waiting": wait}
        )

    def _evaluate(self, iteration: int) -> float | None:
        found: dict[str, float] = {}
        if self.fabric.is_global_zero and self.task.evaluate:
            found = self.task.evaluate()
            self.watch.record(iteration, found)
        if self.fabric.world_size > 1:
            found = self.fabric.broadcast(found)
        if self.task.on_evaluate:
            self.task.on_evaluate(found)
        if self.task.watch:
            for sentence in self.task.watch(found):
                self.watch.warn(sentence)
        distance = found.get("distance")
        return distance if distance is not None and math.isfinite(distance) else None

    def _save(self, iteration: int, distance: float | None) -> None:
        if self.checkpoints and self.fabric.is_global_zero:
            self._check_weights(iteration)
            every = self.config.keep_every
            self.checkpoints.save(
                iteration,
                self._saved,
                self.task.averages,
                self.task.optimizers,
                {
                    "seconds": self.seconds,
                    "seed": self.seed,
                    "precision": {"device": self.fabric.device.type, "used": self.precision},
                    "stateful": {key: value.state_dict() for key, value in self.task.stateful.items()},
                    "scaler": self.scaler.state_dict(),
                },
                distance=distance,
                keep=bool(every) and iteration % every == 0,
            )
        self.fabric.barrier()

    def _check_weights(self, iteration: int) -> None:
        """A checkpoint with broken weights must not replace a good one."""
        sums = {key: float(sum(p.detach().float().sum() for p in m.parameters())) for key, m in self._saved.items()}
        check_finite(iteration, {f"sum of the weights of {key}": value for key, value in sums.items()})


def _due(iteration: int, every: int, *, last: bool) -> bool:
    return bool(every) and (last or iteration % every == 0)


def _pivot(rows: list[tuple[int, str, float]]) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(rows, columns=["iteration", "name", "value"]).drop_duplicates(
        ["iteration", "name"], keep="last"
    )
    return table.pivot(index="iteration", columns="name", values="value")
