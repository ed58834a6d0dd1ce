"""Pictures drawn block by block into a store equal those drawn in memory, also after an interruption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from sst.io import crop_reader
from sst.io.store import Slot, among, draw_in_memory, draw_to_store, store_behind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHAPE = (23, 2, 5, 5)
IMAGES = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)
SLOTS = {"before": Slot(SHAPE[1:]), "after": Slot(SHAPE[1:]), "mean": Slot((2,), np.dtype("f4"))}
BLOCKS = [(a, min(a + 4, 23)) for a in range(0, 23, 4)]


class Draw:
    """Draws ``IMAGES`` and their negatives, and counts; stops at a block if told to."""

    def __init__(self, stop: int = 100) -> None:
        self.drawn: list[int] = []
        self.stop = stop

    def __call__(self, blocks: list[tuple[int, int]]) -> Iterator[dict[str, np.ndarray]]:
        for a, b in blocks:
            if len(self.drawn) == self.stop:
                raise KeyboardInterrupt
            self.drawn.append(a)
            yield {"after": IMAGES[a:b], "before": 255 - IMAGES[a:b], "mean": IMAGES[a:b].mean((2, 3), dtype="f4")}


def drawn(store: Path, draw: Draw, key: str = "a") -> dict:
    return draw_to_store(SLOTS, BLOCKS, draw, store=store, drawn_from=key)


def test_store_equals_memory(tmp_path: Path) -> None:
    inside = draw_in_memory(SLOTS, BLOCKS, Draw())
    outside = drawn(tmp_path / "s", Draw())
    means = inside.pop("mean")  # not a picture: in memory
    assert (outside.pop("mean") == means).all()
    for name, images in inside.items():
        assert hasattr(outside[name], "dask")
        assert (np.asarray(outside[name]) == images).all()
        assert (crop_reader(outside[name]).take([22, 0, 7]) == images[[22, 0, 7]]).all()
        assert (np.asarray(outside[name][3:9, :, 1]) == images[3:9, :, 1]).all()


def test_an_interrupted_call_goes_on_and_a_finished_one_is_not_drawn_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path / "s", Draw(stop=4))
    assert not (tmp_path / "s" / "obsm" / "after").exists()
    second = Draw()
    made = drawn(tmp_path / "s", second)
    assert 1 <= len(second.drawn) < len(BLOCKS)
    assert (np.asarray(made["after"]) == IMAGES).all()
    third = Draw()
    assert (np.asarray(drawn(tmp_path / "s", third)["before"]) == 255 - IMAGES).all()
    assert third.drawn == []


def test_other_pictures_are_neither_mixed_nor_replaced(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        drawn(tmp_path / "s", Draw(stop=3))
    fresh = Draw()
    drawn(tmp_path / "s", fresh, key="b")  # what was half drawn was drawn from something else
    assert len(fresh.drawn) == len(BLOCKS)
    with pytest.raises(FileExistsError, match="other pictures"):
        drawn(tmp_path / "s", Draw(), key="c")


def test_edited_cells_among_the_rest(tmp_path: Path) -> None:
    index = np.array([2, 3, 11, 20])
    blocks = [(0, 3), (3, 4)]
    top = draw_to_store(
        {"e": SLOTS["after"]},
        blocks,
        lambda blocks: ({"e": 255 - IMAGES[index[a:b]]} for a, b in blocks),
        store=tmp_path / "s",
        drawn_from="a",
    )
    expected = IMAGES.copy()
    expected[index] = 255 - IMAGES[index]
    base = drawn(tmp_path / "base", Draw())["after"]
    for others in (IMAGES, base):
        whole = among(top["e"], index, others)
        assert (np.asarray(whole) == expected).all()
        assert (np.asarray(whole[10:13]) == expected[10:13]).all()
        assert (crop_reader(whole).take([20, 21, 2]) == expected[[20, 21, 2]]).all()
        assert (crop_reader(whole).block(1, 5) == expected[1:5]).all()
    assert (among(255 - IMAGES[index], index, IMAGES) == expected).all()
    assert store_behind(base) == (tmp_path / "base").resolve()
    assert store_behind(IMAGES) is None
