"""Losses against slow, obvious forms; gradients reach what they should and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sst.nn import Discriminator, Generator
from sst.train import Cells, DataConfig, GANConfig, gan_task, gan_warnings
from sst.train._losses import (
    fakes,
    info_nce,
    logistic_fake,
    logistic_real,
    path_lengths,
    r1_penalty,
    swap_expression,
)

CPU = torch.device("cpu")


def test_logistic_losses():
    logits = torch.tensor([-3.0, 0.0, 2.0], dtype=torch.float64)
    real = [-math.log(1 / (1 + math.exp(-v))) for v in logits.tolist()]
    fake = [-math.log(1 - 1 / (1 + math.exp(-v))) for v in logits.tolist()]
    assert float(logistic_real(logits)) == pytest.approx(np.mean(real))
    assert float(logistic_fake(logits)) == pytest.approx(np.mean(fake))
    both = fakes(logits, logits.flip(0) + 1, 0.25)
    assert float(both) == pytest.approx(0.75 * float(logistic_fake(logits)) + 0.25 * float(logistic_fake(logits + 1)))
    assert float(fakes(logits, None, 0.25)) == float(logistic_fake(logits))


def test_info_nce_is_two_classifications():
    torch.manual_seed(0)
    a, b = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    found = float(info_nce(a, b, 0.1))
    total = 0.0
    for left, right in ((a, b), (b, a)):
        for i in range(5):
            cos = [float(left[i] @ right[j] / (left[i].norm() * right[j].norm())) / 0.1 for j in range(5)]
            total += -math.log(math.exp(cos[i]) / sum(math.exp(c) for c in cos))
    assert found == pytest.approx(total / 10)
    assert float(info_nce(a, a, 0.01)) < 1e-6


def test_r1_of_a_known_gradient():
    images = torch.randn(3, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, dtype=torch.float64)
    logits = (images.flatten(1) * weight).sum(1)
    assert float(r1_penalty(logits, images)) == pytest.approx(float(weight.square().sum(1).mean()))


def test_path_lengths_of_a_linear_generator():
    torch.manual_seed(0)
    matrix = torch.randn(2 * 3 * 3, 4, dtype=torch.float64)
    styles = torch.randn(5, 2, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(5, 2, 3, 3, dtype=torch.float64)
    images = (styles[:, 0] + 2 * styles[:, 1]) @ matrix.T
    found = path_lengths(images.view(5, 2, 3, 3), styles, noise)
    for b in range(5):
        jty = matrix.T @ (noise[b].flatten() / 3)  # of the first style input; twice that of the second
        expected = torch.sqrt((jty.square().sum() + (2 * jty).square().sum()) / 2)
        assert float(found[b]) == pytest.approx(float(expected))


def make(**changes):
    config = GANConfig.preset("demo").replace(
        generator__channel_base=64, generator__channel_max=8, generator__z_dim=8, generator__w_dim=8,
        generator__gene_width=8, discriminator__channel_base=64, discriminator__channel_max=8, discriminator__embed_dim=8,
        **({"loss__path_weight": 2.0} | changes),
    )  # fmt: skip
    torch.manual_seed(0)
    from sst.train import to_dict

    g = Generator(5, img_channels=2, resolution=8, **to_dict(config.generator))
    d = Discriminator(
        img_channels=2, resolution=8, n_labels=2, n_genes=5,
        input_transform=config.generator.input_transform, **to_dict(config.discriminator),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    cells = Cells(
        rng.integers(0, 256, (16, 2, 8, 8), dtype=np.uint8),
        rng.poisson(4.0, (16, 5)).astype(np.float32),
        rng.integers(0, 2, 16),
        config=DataConfig(),
    )
    return gan_task(g, d, config), cells.loader(8, 0, CPU).batch(0)


PAPER = {
    "loss__mismatch": 0.0, "loss__alignment": 0.0,
    "discriminator__conditioning": "label", "generator__gene_inputs": ("kernel",), "generator__kernel_offset": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("changes", [{}, PAPER], ids=["ours", "paper"])
def test_each_phase_reaches_its_network_alone(changes):
    task, batch = make(**changes)
    assert [p.name for p in task.phases] == ["D", "R1", "G", "PL"]
    with torch.no_grad():  # noise and kernels that start at zero pass no gradient yet
        for name, p in task.modules["generator"].named_parameters():
            if "noise_strength" in name or "kernel_network" in name:
                p.add_(torch.randn_like(p) * 0.1)
    for phase in task.phases:
        for module in task.modules.values():
            module.zero_grad()
        with task.only(phase):
            phase.loss(batch)["loss"].backward()
        for key, module in task.modules.items():
            reached = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
            if key not in phase.trains:
                assert not reached, f"{phase.name} reaches {key}"
                continue
            every = {n for n, _ in module.named_parameters()}
            # R1 sees no bias behind the last nonlinearity, and path lengths none of the mapping's own
            if phase.name in {"D", "G"}:
                assert every - reached <= {n for n in every if "to_images" in n or "bias" in n}, every - reached
            assert any("weight" in n for n in reached), phase.name


def test_kernels_and_styles_both_carry_genes():
    task, batch = make()
    batch.expression.requires_grad_(True)
    phase = next(p for p in task.phases if p.name == "G")
    with task.only(phase):
        phase.loss(batch)["loss"].backward()
    grads = {n: p.grad for n, p in task.modules["generator"].named_parameters()}
    assert grads["style_network.layers.0.weight"].abs().max() > 0
    assert grads["kernel_network.layers.2.weight"].abs().max() > 0  # the last layer, which starts at zero


def test_swapped_expression_equals_another_pass():
    task, batch = make()
    d = task.modules["discriminator"]
    logits, image = d(batch.images, batch.labels, batch.expression, return_embedding=True)
    own, other = d.expression_embedding(batch.expression), d.expression_embedding(batch.other)
    expected = d(batch.images, batch.labels, batch.other)
    torch.testing.assert_close(swap_expression(logits, image, own, other), expected, rtol=1e-5, atol=1e-5)


def test_a_training_that_goes_wrong_is_said():
    assert gan_warnings({"D/real": 1.0, "D/fake": -1.0, "G/loss": 1.0, "diversity": 0.9}) == []
    assert "won" in gan_warnings({"D/real": 30.0, "D/fake": -30.0, "G/loss": 30.0})[0]
    assert "mode collapse" in gan_warnings({"diversity": 0.05})[0]


def test_what_exaggerates_is_tapered_off():
    """Over the last half, mismatched pairs and the generator's InfoNCE fade out; the discriminator's own InfoNCE stays."""
    losses: dict[str, dict[float, dict]] = {"D": {}, "G": {}}
    for progress in (0.0, 0.5, 0.75, 1.0):
        task, batch = make(loss__taper=0.5)
        batch.progress = torch.tensor(progress)
        for phase in task.phases:
            if phase.name in losses:
                batch.draws.generator.manual_seed(0)
                losses[phase.name][progress] = {k: float(v.detach()) for k, v in phase.loss(batch).items()}
    for found in losses.values():
        assert found[0.0] == found[0.5]
        middle = (found[0.5]["loss"] + found[1.0]["loss"]) / 2
        assert found[0.75]["loss"] == pytest.approx(middle, rel=1e-5)
        assert found[0.5]["loss"] != pytest.approx(found[1.0]["loss"], rel=1e-3)
    last = losses["G"][1.0]
    assert losses["G"][0.0]["loss"] - last["loss"] == pytest.approx(0.3 * last["alignment"], rel=1e-4)
    task, batch = make(loss__mismatch=0.0, loss__taper=0.0)
    batch.draws.generator.manual_seed(0)
    without = float(task.phases[0].loss(batch)["loss"].detach())
    assert losses["D"][1.0]["loss"] == pytest.approx(without, rel=1e-5)
