"""Parts of a lazy image equal slices of it, and no chunk is computed twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import dask.array as da
import numpy as np
import pytest

from sst.io.crops._blocks import BlockCache


@pytest.mark.parametrize("chunks", [(1, 17, 23), (3, 64, 10), (2, 100, 100), (1, (60, 4), (1, 79))])
def test_slices(chunks):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 999, (3, 64, 80)).astype(np.uint16)
    lazy = da.from_array(image, chunks=chunks)
    cache = BlockCache(limit=5000)
    for _ in range(60):
        y0, y1 = np.sort(rng.choice(65, 2, replace=False))
        x0, x1 = np.sort(rng.choice(81, 2, replace=False))
        channels = [int(c) for c in rng.permutation(3)[: rng.integers(1, 4)]]
        for source in (lazy, image):
            part = cache.read(source, channels, (int(y0), int(y1)), (int(x0), int(x1)))
            np.testing.assert_array_equal(part, image[channels][:, y0:y1, x0:x1])


def test_chunks_are_computed_once():
    image = np.arange(2 * 40 * 60, dtype=np.uint16).reshape(2, 40, 60)
    seen = []

    def load(block, block_info=None):
        seen.append(tuple(block_info[0]["chunk-location"]))
        return block

    lazy = da.from_array(image, chunks=(1, 10, 10)).map_blocks(
        load, dtype=np.uint16, meta=np.empty((0,) * 3, np.uint16)
    )
    seen.clear()
    cache = BlockCache()
    windows = [((y, y + 15), (x, x + 15)) for y in (0, 10, 20) for x in (0, 10, 20, 30, 40)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda w: cache.read(lazy, [1], *w), windows))
    for part, ((a, b), (c, d)) in zip(parts, windows, strict=True):
        np.testing.assert_array_equal(part, image[1:, a:b, c:d])
    assert len(seen) == len(set(seen)) == 24
    assert all(s[0] == 1 for s in seen)
    cache.clear()
    cache.read(lazy, [0], (0, 1), (0, 1))
    assert len(seen) == 25
