"""The loop: phases, schedule, average, checkpoints, time, divergence."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sst.train import Cells, Checkpoints, DataConfig, FitConfig, Phase, Task, TrainingDivergedError, fit
from sst.train._checkpoint import load_optimizer, optimizer_tensors

CPU = torch.device("cpu")


def make_cells(n: int = 24, seed: int = 0, **data) -> Cells:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    counts = rng.poisson(2.0, (n, 5)).astype(np.float32)
    return Cells(images, counts, rng.integers(0, 2, n), config=DataConfig(**data))


def make_task(*, lr: float = 0.05, log: list | None = None, noisy: bool = True) -> Task:
    torch.manual_seed(0)
    left, right = nn.Linear(5, 16), nn.Linear(16, 3)

    def first(batch):
        if log is not None:
            log.append(("first", batch.iteration))
        noise = batch.draws.normal(16) + (torch.randn(1) if noisy else 0)
        gap = left(batch.expression) + 0.1 * noise - batch.images.flatten(1)
        return {"loss": gap.square().mean(), "size": gap.abs().mean()}

    def second(batch):
        if log is not None:
            log.append(("second", batch.iteration))
        return {"loss": right(left(batch.other)).square().mean()}

    return Task(
        modules={"left": left, "right": right},
        optimizers={
            "left": torch.optim.Adam(left.parameters(), lr=lr, betas=(0.0, 0.99)),
            "right": torch.optim.SGD(right.parameters(), lr=lr, momentum=0.9),
        },
        phases=[
            Phase("first", first, trains=("left",), optimizer="left"),
            Phase("second", second, trains=("right",), optimizer="right", interval=3),
        ],
        ema=("left",),
    )


def config(**changes) -> FitConfig:
    base = {
        "iterations": 10,
        "batch_size": 4,
        "log_every": 2,
        "checkpoint_every": 5,
        "evaluate_every": 5,
        "sample_every": 0,
    }
    return FitConfig(**(base | changes))


def weights(task: Task) -> dict[str, torch.Tensor]:
    found = {f"{k}.{n}": v for k, m in task.modules.items() for n, v in m.state_dict().items()}
    return found | {f"ema.{k}.{n}": v for k, m in task.averages.items() for n, v in m.state_dict().items()}


def same(a: Task, b: Task) -> bool:
    mine, theirs = weights(a), weights(b)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def test_phases_run_at_their_intervals_and_train_their_modules_alone():
    log: list = []
    task = make_task(log=log)
    before = {k: v.clone() for k, v in weights(task).items()}
    result = fit(task, make_cells(), config(iterations=4), device=CPU)
    assert log == [
        ("first", 0), ("second", 0), ("first", 1), ("first", 2), ("first", 3), ("second", 3),
    ]  # fmt: skip
    assert result.iterations == 4
    assert {"first/loss", "first/size", "second/loss", "images_per_second"} <= set(result.history.columns)
    assert all(not torch.equal(before[k], v) for k, v in weights(task).items() if k in before)
    # the second phase never moves the first one's module
    task = make_task()
    task.phases = task.phases[1:]
    fit(task, make_cells(), config(iterations=4), device=CPU)
    assert torch.equal(task.modules["left"].weight, before["left.weight"])
    assert not torch.equal(task.modules["right"].weight, before["right.weight"])
    assert all(p.requires_grad for m in task.modules.values() for p in m.parameters())


def test_loop_equals_the_steps_written_out():
    cells, task = make_cells(rotate=False, flip=False), make_task(noisy=False)
    fit(task, cells, config(iterations=6, ema_images=20, ema_rampup=None), device=CPU, seed=3)
    other = make_task(noisy=False)
    loader = cells.loader(4, 3, CPU)
    left, right = other.modules["left"], other.modules["right"]
    average = {n: p.detach().clone() for n, p in left.named_parameters()}
    for i in range(6):
        batch = loader.batch(i)
        for phase in other.phases:
            if i % phase.interval:
                continue
            values = phase.loss(batch)
            module = left if phase.name == "first" else right
            grads = torch.autograd.grad(values["loss"], list(module.parameters()))
            for p, g in zip(module.parameters(), grads, strict=True):
                p.grad = g
            other.optimizers[phase.optimizer].step()
        for n, p in left.named_parameters():
            average[n] = 0.5 ** (4 / 20) * average[n] + (1 - 0.5 ** (4 / 20)) * p.detach()
    assert torch.equal(left.weight, task.modules["left"].weight)
    assert torch.equal(right.weight, task.modules["right"].weight)
    torch.testing.assert_close(task.averages["left"].weight, average["weight"])


def test_resume_is_bit_equal(tmp_path):
    whole = make_task()
    fit(whole, make_cells(), config(iterations=12), device=CPU, folder=tmp_path / "a")
    fit(make_task(), make_cells(), config(iterations=7), device=CPU, folder=tmp_path / "b")
    resumed = make_task()
    result = fit(resumed, make_cells(), config(iterations=12), device=CPU, folder=tmp_path / "b")
    assert same(whole, resumed)
    assert result.history.index.tolist() == sorted(set(result.history.index))
    again = fit(
        make_task(), make_cells(), config(iterations=12), device=CPU, folder=tmp_path / "b"
    )  # nothing left to do
    assert again.iterations == 12
    with pytest.raises(FileExistsError, match="resume=True"):
        fit(make_task(), make_cells(), config(), device=CPU, folder=tmp_path / "b", resume=False)
    with pytest.raises(ValueError, match="seed=0, not 1"):
        fit(make_task(), make_cells(), config(), device=CPU, folder=tmp_path / "b", seed=1)


SCRIPT = """
    import sys, time, torch
    torch.set_num_threads(1)
    sys.path.insert(0, {here!r})
    from test_fit import config, make_cells, make_task, CPU
    from sst.train import fit
    task = make_task()
    slow = task.phases[0].loss
    def loss(batch):
        time.sleep(0.01)
        return slow(batch)
    object.__setattr__(task.phases[0], "loss", loss)
    fit(task, make_cells(), config(iterations=100000, checkpoint_every=3), device=CPU, folder={folder!r})
"""


@pytest.mark.slow
def test_killed_run_continues_the_same_trajectory(tmp_path):
    code = textwrap.dedent(SCRIPT.format(here=str(Path(__file__).parent), folder=str(tmp_path / "k")))
    process = subprocess.Popen([sys.executable, "-c", code])
    points = Checkpoints(tmp_path / "k")
    try:
        deadline = time.time() + 120
        while time.time() < deadline and not (points.state and int(points.state["last"][2:]) >= 9):
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = int(points.state["last"][2:])
    assert done >= 9
    resumed, whole = make_task(), make_task()
    fit(resumed, make_cells(), config(iterations=done + 8, checkpoint_every=3), device=CPU, folder=tmp_path / "k")
    fit(whole, make_cells(), config(iterations=done + 8), device=CPU)
    assert same(whole, resumed)


def test_half_written_checkpoint_is_ignored(tmp_path):
    fit(make_task(), make_cells(), config(iterations=5), device=CPU, folder=tmp_path)
    draft = tmp_path / "checkpoints" / ".draft-01234567-it00000006"
    draft.mkdir()
    (draft / "left.safetensors").write_bytes(b"broken")
    resumed, whole = make_task(), make_task()
    fit(resumed, make_cells(), config(iterations=8), device=CPU, folder=tmp_path)
    fit(whole, make_cells(), config(iterations=8), device=CPU)
    assert same(whole, resumed)
    assert not draft.exists()


def test_best_last_and_kept_checkpoints(tmp_path):
    task, distances = make_task(), iter([3.0, 1.0, 2.0, 5.0])
    seen = []
    task.evaluate = lambda: {"distance": next(distances)}
    task.on_evaluate = seen.append
    result = fit(task, make_cells(), config(iterations=8, evaluate_every=2, keep_every=6), device=CPU, folder=tmp_path)
    names = sorted(p.name for p in (tmp_path / "checkpoints").glob("it*"))
    assert names == ["it00000004", "it00000006", "it00000008"]  # best, kept, last
    assert result.best is not None
    assert result.best.name == "it00000004"
    assert [s["distance"] for s in seen] == [3.0, 1.0, 2.0, 5.0]
    assert result.history["distance"].dropna().tolist() == [3.0, 1.0, 2.0, 5.0]
    assert not list(tmp_path.rglob("*.pt"))
    assert not list(tmp_path.rglob("*.pkl"))


def test_divergence_is_said_and_not_saved(tmp_path):
    task = make_task()
    fine = task.phases[0].loss
    broken = lambda b: {k: v * (math.nan if b.iteration >= 7 else 1) for k, v in fine(b).items()}
    object.__setattr__(task.phases[0], "loss", broken)
    with pytest.raises(TrainingDivergedError, match="first/loss"):
        fit(task, make_cells(), config(), device=CPU, folder=tmp_path)
    assert Checkpoints(tmp_path).state["last"] == "it00000005"


def test_losses_are_told_how_far_the_run_is():
    told: list[float] = []

    def recorded(batch):
        told.append(float(batch.progress))
        return {"loss": task.modules["left"](batch.expression).square().mean()}

    task = make_task()
    task.phases = [Phase("only", recorded, trains=("left",), optimizer="left")]
    fit(task, make_cells(), config(iterations=4), device=CPU)
    assert told == [0, 0.25, 0.5, 0.75]
    told.clear()
    fit(task, make_cells(), config(iterations=10**9, max_seconds=0.3), device=CPU)  # the budget that ends first
    assert told == sorted(told)
    assert told[0] < 0.2
    assert 0.5 < told[-1] < 1


def test_time_budget_of_the_processor(monkeypatch):
    """Waiting costs no processor time: by that clock a training that waits does more iterations."""
    monkeypatch.setattr("sst.train._fit._Run._iteration", lambda *_: time.sleep(0.02))
    wall, cpu = (
        fit(make_task(), make_cells(), config(iterations=40, max_seconds=0.2, clock=clock), device=CPU)
        for clock in ("wall", "cpu")
    )
    assert wall.iterations < 15
    assert cpu.iterations > 20
    assert cpu.seconds < 0.02 * cpu.iterations


def test_time_budget(tmp_path):
    task = make_task()
    result = fit(task, make_cells(), config(iterations=10**9, max_seconds=0.3), device=CPU, folder=tmp_path)
    assert 0.3 <= result.seconds < 5
    assert 0 <= result.wait < 1
    again = fit(make_task(), make_cells(), config(iterations=10**9, max_seconds=0.3), device=CPU, folder=tmp_path)
    assert again.iterations == result.iterations


def test_optimizer_state_survives():
    task = make_task()
    fit(task, make_cells(), config(iterations=4), device=CPU)
    for key in task.optimizers:
        mine, other = task.optimizers[key], make_task().optimizers[key]
        load_optimizer(other, *optimizer_tensors(mine))
        a, b = mine.state_dict(), other.state_dict()
        assert a["param_groups"] == b["param_groups"]
        assert str(a["state"]) == str(b["state"])


def test_unknown_names_in_a_task():
    task = make_task()
    with pytest.raises(ValueError, match="optimizer of phase 'x'"):
        Task(task.modules, task.optimizers, [Phase("x", lambda b: None, ("left",), "none")])
    with pytest.raises(ValueError, match="module of phase 'x'"):
        Task(task.modules, task.optimizers, [Phase("x", lambda b: None, ("middle",), "left")])


DDP = """
    import sys, torch
    torch.set_num_threads(1)
    sys.path.insert(0, {here!r})
    from test_fit import config, make_cells, make_task, CPU, weights
    from safetensors.torch import save_file
    from sst.train import fit
    import os
    task = make_task(noisy=False)
    fit(task, make_cells(), config(iterations=6, evaluate_every=0), device=CPU, folder={folder!r})
    if os.environ["RANK"] == "0":
        save_file({{k: v.clone() for k, v in weights(task).items()}}, {out!r})
"""


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    from safetensors.torch import load_file

    out = tmp_path / "weights.safetensors"
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent(DDP.format(here=str(Path(__file__).parent), folder=str(tmp_path / "d"), out=str(out)))
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run(command, check=True, capture_output=True, timeout=180)
    one = make_task(noisy=False)
    fit(one, make_cells(), config(iterations=6), device=CPU)
    two = load_file(out)
    assert two.keys() == weights(one).keys()
    for key, value in weights(one).items():
        torch.testing.assert_close(two[key], value, rtol=1e-5, atol=1e-6)
