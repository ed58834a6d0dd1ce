"""Hematoxylin and eosin apart."""

from __future__ import annotations

import numpy as np
import pytest
from vendors import EOSIN, HEMATOXYLIN

from sst.metrics import stain_densities


def test_known_amounts_come_out():
    rng = np.random.default_rng(0)
    amounts = rng.uniform(0.05, 0.9, (3, 2, 8, 8))
    density = np.einsum("nshw,sc->nchw", amounts, np.stack([HEMATOXYLIN, EOSIN]))
    images = np.rint(255 * 10**-density).astype(np.uint8)
    found = stain_densities(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, amounts, atol=0.06)


def test_white_holds_no_stain():
    assert np.abs(stain_densities(np.full((1, 3, 4, 4), 255, np.uint8))).max() < 1e-5


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="2 channels"):
        stain_densities(np.zeros((1, 2, 4, 4), np.uint8))
    with pytest.raises(TypeError, match="uint16"):
        stain_densities(np.zeros((1, 3, 4, 4), np.uint16))
