"""Compiled networks and recorded graphs: the same training, and none that goes wrong."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from tiny_training import TINY, cells, task

from sst.train import _compile as module
from sst.train import fit
from sst.train._compile import Plan, plan
from sst.train._gradients import Gradients

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The compiler's tracing and autograd without a C++ compiler's minutes."""
    monkeypatch.setattr(module, "BACKEND", "aot_eager")
    torch._dynamo.reset()


def train(compile_, folder=None, iterations=10, made=None):
    made = made or task()
    config = TINY.replace(fit__compile=compile_, fit__iterations=iterations).fit
    result = fit(made, cells(), config, folder=folder, device=CPU, seed=1)
    weights = {f"{k}.{n}": v for k, m in made.modules.items() for n, v in m.state_dict().items()}
    weights |= {f"ema.{n}": v for n, v in made.averages["generator"].state_dict().items()}
    return weights, result.history


def assert_same(a, b, **tolerance):
    assert a.keys() == b.keys()
    for key, value in a.items():
        torch.testing.assert_close(b[key], value, msg=lambda m, key=key: f"{key}: {m}", **tolerance)


LOSSES = ["D/loss", "G/loss", "R1/loss", "PL/loss"]


def test_plans():
    assert plan("auto", CPU, iterations=10**6) == Plan()
    assert plan("off", CUDA, iterations=10**6) == Plan()
    assert plan("auto", CUDA, iterations=100) == Plan(graphs=True)
    assert plan("auto", CUDA, iterations=10**6).graphs
    assert not plan("auto", CUDA, iterations=10**6, world=2).graphs
    assert plan("auto", CUDA, iterations=10**6, deterministic=True) == Plan()
    assert plan("on", CPU, iterations=1) == Plan(networks=True)
    assert plan("both", CUDA, iterations=1) == Plan(networks=True, graphs=True)


def test_graphs_without_a_gpu_are_said_and_left_out(caplog):
    with caplog.at_level(logging.WARNING, logger="sst"):
        assert plan("both", CPU, iterations=1) == Plan(networks=True)
        assert plan("graphs", CUDA, iterations=1, world=2) == Plan()
    assert "on a CPU" in caplog.text
    assert "2 processes" in caplog.text


@pytest.mark.slow
def test_compiled_training_is_the_same_training(tmp_path, caplog):
    """Losses, weights, averages; regularisers and resuming; one compilation of each use, none again and again."""
    from torch._dynamo.utils import counters

    counters.clear()
    steady = TINY.replace(loss__taper=0.0)  # a run in two parts tapers off twice
    plain, expected = train("off", made=task(steady))
    with caplog.at_level(logging.WARNING, logger="sst"):
        made = task(
            steady
        )  # one for both runs spares half the compiling; the second run reads everything from the checkpoint
        train("on", tmp_path / "a", iterations=5, made=made)
        for parameter in made.modules["generator"].parameters():
            parameter.data.zero_()
        found, history = train("on", tmp_path / "a", made=made)
    assert not caplog.records
    assert_same(plain, found, rtol=1e-4, atol=1e-5)
    for name in LOSSES:
        np.testing.assert_allclose(history[name], expected[name], rtol=1e-4, atol=1e-5)
    assert not counters["graph_break"]
    # generator without and with gradients, discriminator trained and frozen (images without and with gradients)
    assert counters["stats"]["unique_graphs"] == 4
    assert not any("_orig_mod" in name for name in found)


def test_a_compiler_that_fails_is_said_once_and_training_goes_on(monkeypatch, caplog):
    plain, _ = train("off")

    def broken(graph, inputs):
        msg = "no compiler here"
        raise RuntimeError(msg)

    monkeypatch.setattr(module, "BACKEND", broken)
    with caplog.at_level(logging.WARNING, logger="sst"):
        found, _ = train("on")
    assert_same(plain, found, rtol=0, atol=0)
    assert [r.message.startswith("torch.compile cannot be used here") for r in caplog.records] == [True]


@pytest.mark.parametrize("where", ["loss", "gradients"])
def test_a_compiler_that_is_wrong_is_found_out(monkeypatch, caplog, where):
    """The first step of each phase is compared with the same step as it is, and that one counts."""
    plain, _ = train("off")

    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g / 2

    def wrong(call):
        bend = (lambda t: t * 1.5) if where == "loss" else Half.apply
        change = lambda found: tuple(map(bend, found)) if isinstance(found, tuple) else bend(found)
        return lambda *args: change(call(*args))

    monkeypatch.setattr(module, "compiled", wrong)
    with caplog.at_level(logging.WARNING, logger="sst"):
        found, _ = train("on")
    assert_same(plain, found, rtol=0, atol=0)
    assert len(caplog.records) == 1
    assert "of phase D come out differently" in caplog.text


class Tape:
    """Stands in for a CUDA graph on a CPU: fixed inputs, fixed outputs, replayed by running again."""

    def __init__(self, spoil=None):
        self.recorded, self.replays, self.spoil = 0, 0, spoil

    def record(self, call, device, generators=(), pool=None):
        self.recorded += 1
        if self.spoil == "capture":
            msg = "operation not permitted when stream is capturing"
            raise RuntimeError(msg)
        states = [(g, g.get_state()) for g in generators]
        host = torch.get_rng_state()
        names, values = call()  # a real recording computes nothing; the caller restores what this changed
        for g, state in states:
            g.set_state(state)
        torch.set_rng_state(host)
        kept = self.gradients(call)

        def replay():
            self.replays += 1
            _, now = call()
            values.copy_(now)
            for mine, fresh in zip(kept, self.gradients(call), strict=True):
                if mine is not None:
                    mine.copy_(fresh)
            if self.spoil == "replay":
                values.mul_(2)

        return (names, values), replay, None

    def gradients(self, call):
        phase = call.__closure__[[*call.__code__.co_freevars].index("phase")].cell_contents
        return [p.grad for p in self.task.trained(phase)]


def run_recorded(monkeypatch, spoil=None):
    tape, made = Tape(spoil), task()
    tape.task = made
    monkeypatch.setattr(module, "record", tape.record)
    monkeypatch.setattr("sst.train._fit.plan", lambda *_, **__: Plan(graphs=True))
    weights, history = train("graphs", iterations=14, made=made)
    return tape, weights, history


def test_recorded_training_is_the_same_training(monkeypatch):
    plain, expected = train("off", iterations=14)
    tape, found, history = run_recorded(monkeypatch)
    assert tape.recorded == 4  # each phase once
    assert tape.replays == 4 + 10 + 10 + 3 + 3  # once in comparison; after that all others
    assert_same(plain, found, rtol=0, atol=0)
    for name in LOSSES:
        np.testing.assert_array_equal(history[name], expected[name])


@pytest.mark.parametrize(
    ("spoil", "says"), [("capture", "when stream is capturing"), ("replay", "of phase D come out")]
)
def test_a_recording_that_fails_or_is_wrong_is_left_out(monkeypatch, caplog, spoil, says):
    plain, _ = train("off", iterations=14)
    with caplog.at_level(logging.WARNING, logger="sst"):
        _, found, _ = run_recorded(monkeypatch, spoil)
    assert_same(plain, found, rtol=0, atol=0)
    assert len(caplog.records) == 1
    assert "CUDA graphs cannot be used here" in caplog.text
    assert says in caplog.text


def test_what_a_task_does_not_offer_is_not_used():
    made = task()
    made.compile, made.recordable = None, False
    found = Gradients(made, Plan(networks=True, graphs=True), lambda phase, batch: None, CPU)
    assert not found.networks
    assert not found.graphs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("setting", ["on", "graphs", "both"])
def test_on_a_gpu(setting, caplog, monkeypatch):
    """The real thing: captured, replayed, compared with the training as it is."""
    monkeypatch.setattr(module, "BACKEND", "inductor")
    config = TINY.replace(fit__iterations=30)
    plain, other = task(), task()
    fit(plain, cells(), config.replace(fit__compile="off").fit, device=CUDA, seed=1)
    with caplog.at_level(logging.WARNING, logger="sst"):
        fit(other, cells(), config.replace(fit__compile=setting).fit, device=CUDA, seed=1)
    assert not caplog.records
    for name, value in plain.modules["generator"].state_dict().items():
        torch.testing.assert_close(other.modules["generator"].state_dict()[name], value, rtol=1e-2, atol=1e-2)
