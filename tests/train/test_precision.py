"""The precision of a run: measured, kept, and in effect."""

from __future__ import annotations

import pytest
import torch
from tiny_training import TINY, cells, task

from sst.train import Checkpoints, fit
from sst.train import _fit as loop
from sst.train import _precision as module

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _fresh():
    module._faster_on_a_cpu.cache_clear()
    yield
    module._faster_on_a_cpu.cache_clear()


@pytest.mark.parametrize(("seconds", "expected"), [(0.5, "bf16"), (0.95, "fp32"), (3.0, "fp32")])
def test_the_faster_one_is_taken(monkeypatch, seconds, expected):
    """Whatever the CPU's flags say."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])

    def step(dtype):
        def run():
            clock[0] += seconds if dtype == torch.bfloat16 else 1.0

        return run

    monkeypatch.setattr(module, "_step", step)
    assert module.resolve_precision("auto", CPU) == expected
    monkeypatch.setattr(module, "_step", None)  # it is measured once
    assert module.resolve_precision("auto", CPU) == expected
    assert module.resolve_precision("bf16", CPU) == "bf16"
    assert module.resolve_precision("auto", torch.device("mps")) == "fp32"


def test_measuring_leaves_random_numbers_alone():
    before = torch.get_rng_state()
    assert module.resolve_precision("auto", CPU) in {"fp32", "bf16"}
    assert torch.equal(before, torch.get_rng_state())


def trained(precision, folder=None, iterations=3):
    made = task()
    config = TINY.replace(fit__precision=precision, fit__iterations=iterations).fit
    fit(made, cells(), config, folder=folder, device=CPU, seed=1)
    return {n: v.clone() for n, v in made.modules["generator"].state_dict().items()}


def test_it_reaches_the_feature_maps_alone():
    full, half = trained("fp32"), trained("bf16")
    assert not all(torch.equal(full[n], half[n]) for n in full)
    for name, value in half.items():
        assert value.dtype == full[name].dtype
        torch.testing.assert_close(value, full[name], rtol=0.1, atol=0.05)


def test_a_resumed_run_keeps_its_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "resolve_precision", lambda *_: "bf16")
    whole = trained("auto", iterations=6)
    trained("auto", tmp_path)
    assert Checkpoints(tmp_path).rest()["precision"] == {"device": "cpu", "used": "bf16"}
    monkeypatch.setattr(loop, "resolve_precision", lambda *_: "fp32")  # a busier machine
    resumed = trained("auto", tmp_path, iterations=6)
    assert all(torch.equal(whole[n], resumed[n]) for n in whole)
