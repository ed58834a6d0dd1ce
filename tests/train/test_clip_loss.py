from __future__ import annotations

import numpy as np
import pytest
import torch

from sst.train._clip_loss import contrastive_loss, retrieval, soft_contrastive_loss
from sst.train._inversion_loss import inversion_loss
from sst.train._schedule import follow_cosine


def test_soft_contrastive_loss_by_hand() -> None:
    rng = np.random.default_rng(0)
    image, expression = rng.normal(size=(2, 5, 3))

    def softmax(a: np.ndarray) -> np.ndarray:
        e = np.exp(a - a.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    t = 0.7
    logits = expression @ image.T / t
    targets = softmax((image @ image.T + expression @ expression.T) / 2 * t)
    rows = np.mean([-np.sum(targets[k] * np.log(softmax(logits)[k])) for k in range(5)])
    columns = np.mean([-np.sum(targets.T[k] * np.log(softmax(logits.T)[k])) for k in range(5)])
    ours = soft_contrastive_loss(torch.tensor(image), torch.tensor(expression), temperature=t)
    assert float(ours) == pytest.approx((rows + columns) / 2)


def test_contrastive_loss_by_hand() -> None:
    rng = np.random.default_rng(0)
    image, expression = rng.normal(size=(2, 5, 3))
    cosines = np.array([[e @ i / np.linalg.norm(e) / np.linalg.norm(i) for i in image] for e in expression]) / 0.3
    rows = np.mean([np.log(np.exp(cosines[k]).sum()) - cosines[k, k] for k in range(5)])
    columns = np.mean([np.log(np.exp(cosines[:, k]).sum()) - cosines[k, k] for k in range(5)])
    ours = contrastive_loss(torch.tensor(image), torch.tensor(expression), temperature=0.3)
    assert float(ours) == pytest.approx((rows + columns) / 2)


def test_cosine_schedule() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=9.0)

    def lr(done: float, **options: float) -> float:
        follow_cosine(optimizer, 2.0, done, **options)
        return optimizer.param_groups[0]["lr"]

    assert [lr(k) for k in (0, 0.5, 1, 1.2)] == pytest.approx([2, 1, 0, 0])
    assert [lr(0, warmup=k) for k in (0.1, 0.5, 3)] == pytest.approx([0.2, 1, 2])


def test_retrieval_against_a_sort() -> None:
    torch.manual_seed(1)
    keys = torch.randn(50, 8)
    queries = keys + 0.8 * torch.randn(50, 8)
    a, b = (torch.nn.functional.normalize(x, dim=1) for x in (queries, keys))
    order = (a @ b.T).argsort(1, descending=True)
    for top in (1, 10):
        expected = np.mean([k in order[k, :top].tolist() for k in range(50)])
        assert retrieval(queries, keys, top=top, chunk=7) == pytest.approx(expected)
    assert retrieval(keys, keys, top=1) == 1
    assert retrieval(torch.ones(50, 8), torch.ones(50, 8), top=10) == 0  # ties count against


class _Distance:
    def targets(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))

    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (images.mean((1, 2, 3)) - targets).abs()


def test_inversion_loss_equals_a_loop_over_cells() -> None:
    torch.manual_seed(0)
    output, target = torch.rand(2, 4, 2, 6, 6)
    network = _Distance()
    terms = inversion_loss(
        output,
        target,
        l2=15,
        perceptual=(0.5, network, network.targets(target)),
        identity=(0.25, network, network.targets(target)),
    )
    for k in range(4):
        l2 = ((output[k] - target[k]) ** 2).mean()
        d = (output[k].mean() - target[k].mean()).abs()
        torch.testing.assert_close(terms["total"][k], 15 * l2 + 0.75 * d)
    assert set(inversion_loss(output, target, l2=1)) == {"total", "l2"}
