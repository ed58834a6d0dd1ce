"""Cutting and resizing against padding, slicing and torch."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from sst.io.crops._pixels import cut_windows, resize_weights


def slices(image, corners, size):
    pad = size + 200
    wide = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    return np.stack([wide[:, y + pad : y + pad + size, x + pad : x + pad + size] for x, y in corners])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 60),
    dtype=st.sampled_from(["u1", "u2", "f4"]),
    height=st.integers(1, 80),
    width=st.integers(1, 80),
)
def test_slices_are_exact(seed, size, dtype, height, width):
    rng = np.random.default_rng(seed)
    image = (rng.random((2, height, width)) * 250).astype(dtype)
    corners = rng.integers(-100, 100, (7, 2))
    np.testing.assert_array_equal(cut_windows(image, corners, size), slices(image, corners, size))


@pytest.mark.parametrize(("size", "output_size"), [(160, 128), (96, 128), (33, 64), (100, 7), (64, 32)])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_resize_is_antialiased_bicubic(size, output_size, dtype):
    rng = np.random.default_rng(0)
    top = {"u1": 255, "u2": 65535, "f4": 1}[dtype]
    image = (rng.random((2, 200, 220)) * top).astype(dtype)
    corners = rng.integers(-10, 100, (9, 2))
    ours = cut_windows(image, corners, size, output_size).astype(np.float64)
    cells = torch.from_numpy(slices(image, corners, size).astype(np.float64))
    theirs = torch.nn.functional.interpolate(cells, size=(output_size,) * 2, mode="bicubic", antialias=True).numpy()
    if dtype == "f4":
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    else:  # rounding and kept inside the range: never more than rounding apart
        assert np.abs(ours - np.clip(theirs, 0, top)).max() <= 0.5 + 1e-6 * top


def test_weights_sum_to_one_and_keep_a_constant():
    first, weights = resize_weights(160, 128)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert (first >= 0).all()
    assert (first + (weights != 0).sum(axis=1) <= 160).all()
    image = np.full((1, 300, 300), 1234, np.uint16)
    assert (cut_windows(image, np.array([[5, 9]]), 160, 128) == 1234).all()
