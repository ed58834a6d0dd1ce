"""Killed at any step of saving a model: the old one or the new one is there, whole, and the next save clears up."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from factories import paired_cells, small_gan
from killing import every_kill

from sst.models import load

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
FILES = ["config.json", "history.csv", "registry.json", "weights.safetensors"]


def test_a_model_that_is_replaced(tmp_path):
    torch.set_num_threads(1)
    adata = paired_cells()
    old, new = small_gan(adata), small_gan(adata, seed=1)
    folder = tmp_path / "gan"

    def prepare():
        shutil.rmtree(folder, ignore_errors=True)
        old.save(folder)

    found = []
    for _ in every_kill(lambda: new.save(folder, overwrite=True), folder, prepare):
        found.append(load(folder).hash)
        new.save(folder, overwrite=True)
        assert load(folder).hash == new.hash
        assert sorted(p.name for p in folder.iterdir()) == FILES
    assert len(found) > 8  # kills that were tried
    assert set(found) == {old.hash, new.hash}
    assert found == sorted(found, key=[old.hash, new.hash].index)  # never back to the old one


def test_a_model_that_is_saved_first(tmp_path):
    torch.set_num_threads(1)
    new = small_gan(paired_cells())
    folder = tmp_path / "gan"
    for _ in every_kill(lambda: new.save(folder), tmp_path, lambda: shutil.rmtree(folder, ignore_errors=True)):
        try:
            assert load(folder).hash == new.hash
        except FileNotFoundError as error:
            assert "not a model's folder" in str(error)  # noqa: PT017 - one or the other
        new.save(folder)
        assert sorted(p.name for p in folder.iterdir()) == FILES
