"""Cells on their way to the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from sst.train import Cells, DataConfig, Expression, to_uint8, to_unit
from sst.train._draws import jitter_counts, turn
from sst.train._order import Order

CPU = torch.device("cpu")


class Recorder:
    """A source that is not an array, and remembers how it was read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.reads = array, array.shape, array.dtype, []

    def take(self, idx):
        self.reads.append(("take", len(idx)))
        return self.array[idx]

    def block(self, a, b):
        self.reads.append(("block", b - a))
        return self.array[a:b]


def data(n=50, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 2, 6, 6), dtype=np.uint8)
    counts = sparse.random(n, 9, 0.3, format="csr", random_state=1, data_rvs=lambda k: rng.integers(1, 9, k))
    return images, counts, rng.integers(0, 3, n)


def test_uint8_round_trip():
    values = torch.arange(256, dtype=torch.uint8)[None, None, None]
    assert torch.equal(to_uint8(to_unit(values)), values)
    assert to_unit(values).min() == -1
    assert to_unit(values).max() == 1


def test_expression_equals_dense_rows():
    _, counts, _ = data()
    rows = np.array([3, 3, 49, 0, 17])
    taken = Expression(counts, CPU).take(rows)
    np.testing.assert_array_equal(taken.numpy(), counts.toarray()[rows].astype(np.float32))
    empty = Expression(sparse.csr_matrix((4, 9)), CPU).take(np.array([1, 2]))
    assert empty.shape == (2, 9)
    assert not empty.any()


@pytest.mark.parametrize(
    ("rotate", "flip", "count"), [(True, True, 8), (True, False, 4), (False, True, 2), (False, False, 1)]
)
def test_turns_reach_every_symmetry_and_no_other(rotate, flip, count):
    image = torch.arange(9.0).view(1, 1, 3, 3)
    u = torch.cartesian_prod(*[torch.tensor([0.2, 0.8])] * 3)
    turned = turn(image.expand(8, 1, 3, 3), u, rotate=rotate, flip=flip)
    found = {tuple(t.flatten().tolist()) for t in turned}
    square = [torch.rot90(image[0], k, (1, 2)) for k in range(4 if rotate else 1)]
    square += [s.flip(2) for s in square] if flip else []
    assert found == {tuple(s.flatten().tolist()) for s in square}
    assert len(found) == count


def test_jitter_has_the_paper_s_law():
    generator = torch.Generator().manual_seed(0)
    u, t = (torch.rand(200_000, generator=generator) for _ in range(2))
    change = jitter_counts(torch.full((200_000,), 5.0), u, t) - 5
    assert change.abs().max() < 1
    assert (change == 0).float().mean() == pytest.approx(1 / 3, abs=0.01)
    assert (change > 0).float().mean() == pytest.approx(1 / 3, abs=0.01)
    assert change[change > 0].mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("block", [0, 7])
def test_order_is_a_shuffle_of_every_epoch(block):
    order = Order(50, 8, seed=1, block=block, buffer_blocks=2)
    rows = np.concatenate([order.rows(i) for i in range(25)])  # 4 epochs
    for epoch in rows.reshape(4, 50):
        assert sorted(epoch) == list(range(50))
    assert not np.array_equal(rows[:50], rows[50:100])
    again = Order(50, 8, seed=1, block=block, buffer_blocks=2)
    np.testing.assert_array_equal(again.rows(13), order.rows(13))  # from nothing but the number of the iteration


@pytest.mark.parametrize("placement", ["device", "memory", "stream"])
def test_placements_give_paired_cells(placement):
    images, counts, labels = data()
    rows = np.flatnonzero(np.arange(50) % 5)
    source = Recorder(images)
    config = DataConfig(rotate=False, flip=False, placement=placement, block=6, buffer_blocks=2)
    cells = Cells(source, counts[rows], labels[rows], rows=rows, config=config)
    loader = cells.loader(8, 3, CPU)
    seen = []
    for i in [0, 1, 2, 3, 4, 5, 11]:
        batch = loader.batch(i)
        index = batch.index.numpy()
        seen.extend(index if i < 5 else [])
        assert torch.equal(batch.images, to_unit(torch.from_numpy(images[rows[index]])))
        np.testing.assert_array_equal(batch.expression.numpy(), counts[rows[index]].toarray())
        np.testing.assert_array_equal(batch.labels.numpy(), labels[rows[index]])
        every = counts[rows].toarray()
        for label, other in zip(batch.other_labels.numpy(), batch.other.numpy(), strict=True):
            matches = np.flatnonzero((every == other).all(1))
            assert label in labels[rows[matches]]
    assert sorted(seen) == sorted(range(40))
    assert source.reads
    assert loader.wait > 0
    if placement == "stream":
        assert {kind for kind, _ in source.reads} == {"block"}  # in sequence, never scattered


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_processes_share_the_batch(placement):
    images, counts, labels = data()
    config = DataConfig(jitter=1.0, placement=placement, block=10, buffer_blocks=2)
    cells = Cells(images, counts, labels, config=config)
    one = cells.loader(8, 3, CPU).batch(5)
    parts = [cells.loader(8, 3, CPU, rank=r, world=2).batch(5) for r in range(2)]
    for name in ("index", "images", "expression", "labels", "other", "other_labels"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(one, name))
    assert torch.equal(torch.cat([p.draws.normal(3) for p in parts]), one.draws.normal(3))
    assert one.expression.min() >= 0
    with pytest.raises(ValueError, match="cannot be shared by 3"):
        cells.loader(8, 3, CPU, world=3)


def test_wrong_data_are_named():
    images, counts, labels = data()
    with pytest.raises(TypeError, match="uint16"):
        Cells(images.astype(np.uint16), counts, labels, config=DataConfig())
    with pytest.raises(ValueError, match="do not pair"):
        Cells(images, counts[:3], labels, config=DataConfig())


@pytest.mark.parametrize("block", [0, 4])
def test_batches_are_balanced_over_slides(block):
    slides = np.repeat([0, 1, 2], [30, 6, 15])
    order = Order(51, 6, seed=1, block=block, buffer_blocks=6, slides=slides)
    epochs = np.concatenate([order.rows(i) for i in range(34)]).reshape(4, 51)
    for epoch in epochs:
        assert (np.bincount(slides[epoch]) == 17).all()
        assert set(epoch[slides[epoch] == 1]) == set(range(30, 36))  # all of a small slide, some of them again
        large = epoch[slides[epoch] == 0]
        assert len(set(large)) == 17
    assert len(set(epochs[slides[epochs] == 0])) > 25  # other cells of a large one each time
    if not block:
        assert (np.abs(np.stack([np.bincount(slides[order.rows(i)], minlength=3) for i in range(8)]) - 2) <= 1).all()
    again = Order(51, 6, seed=1, block=block, buffer_blocks=6, slides=slides)
    np.testing.assert_array_equal(again.rows(13), order.rows(13))


@pytest.mark.parametrize("placement", ["device", "stream"])
def test_others_come_from_the_slide_of_each_cell(placement):
    rng = np.random.default_rng(0)
    slides = rng.integers(0, 3, 60)
    counts = np.stack([slides, np.arange(60)], axis=1).astype(np.float32)
    images = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None, None], (60, 1, 8, 8)).copy()
    config = DataConfig(rotate=False, flip=False, placement=placement, block=5, buffer_blocks=4)
    cells = Cells(images, counts, np.zeros(60, int), slides=slides, config=config)
    whole = cells.loader(12, 0, torch.device("cpu"))
    halves = [cells.loader(12, 0, torch.device("cpu"), rank=r, world=2) for r in range(2)]
    apart = 0
    for i in range(8):
        batch = whole.batch(i)
        assert torch.equal(batch.expression[:, 0], batch.slides)
        assert torch.equal(batch.other[:, 0], batch.slides)
        assert torch.equal(((batch.images[:, 0, 0, 0] + 1) * 127.5).round(), batch.expression[:, 1])
        apart += int((batch.distant[:, 0] != batch.slides).sum())
        parts = [half.batch(i) for half in halves]
        for name in ("expression", "other", "distant", "slides"):
            assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(batch, name))
    assert apart > 20
