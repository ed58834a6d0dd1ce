"""Short hashes of what results were made from, so that nothing is reused that was made from something else."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import scipy.sparse as sp

from sst.editing import iter_rows
from sst.io import crop_reader

_AT_ONCE = 1 << 16  # rows, or values that are not zero


def expression_hash(X: Any) -> str:
    """Short hash of a matrix; one that is not in memory is read block by block."""
    digest = hashlib.blake2b(str(X.shape).encode(), digest_size=8)
    whole = sp.issparse(X) or isinstance(X, np.ndarray)
    for block in [X] if whole else (block for _, block in iter_rows(X)):
        if sp.issparse(block):
            block = block if block.format in {"csr", "csc"} else block.tocsr()
            parts = [(block.indptr, np.int64), (block.indices, np.int32), (block.data, np.float32)]
        else:
            parts = [(block, np.float32)]
        for values, dtype in parts:
            for start in range(0, len(values), _AT_ONCE):
                part: Any = np.ascontiguousarray(values[start : start + _AT_ONCE], dtype=dtype)
                digest.update(memoryview(part).cast("B") if part.size else b"")
    return digest.hexdigest()


def image_hash(images: Any) -> str:
    """Short hash of the shape and of 64 images, evenly spread: what was drawn or cut anew differs in all of them."""
    some = np.unique(np.linspace(0, max(len(images) - 1, 0), min(64, len(images))).astype(int))
    digest = hashlib.blake2b(str(tuple(images.shape)).encode(), digest_size=8)
    shown = (
        crop_reader(images).take(some) if hasattr(images, "dask") else images[some]
    )  # dask would compute whole chunks
    digest.update(np.ascontiguousarray(shown).tobytes())
    return digest.hexdigest()
