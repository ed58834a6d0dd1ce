"""Trainings without bars, on one thread."""

from __future__ import annotations

import pytest
import torch

import sst


@pytest.fixture
def quiet(monkeypatch):
    monkeypatch.setattr(sst.settings, "progress", False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
