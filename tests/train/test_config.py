"""Options check themselves and survive JSON."""

from __future__ import annotations

import json

import pytest
import torch

from sst.train import FitConfig, GANConfig, GeneratorConfig, from_dict, to_dict
from sst.train._ema import EMA


@pytest.mark.parametrize("name", ["paper", "fast", "demo"])
def test_presets_survive_json(name):
    config = GANConfig.preset(name).replace(fit__max_seconds=3.5)
    assert from_dict(GANConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_presets_differ_as_documented():
    paper, fast = GANConfig.preset("paper"), GANConfig.preset("fast")
    assert (paper.generator.gene_inputs, paper.generator.kernel_offset, paper.generator.input_transform) == (
        ("kernel",), 0.0, "counts",
    )  # fmt: skip
    assert paper.discriminator.conditioning == "label"
    ema = EMA(torch.nn.Linear(1, 1), paper.fit.ema_images, paper.fit.ema_rampup)
    assert ema.decay(10**6, 16) == pytest.approx(0.5 ** (32 / 10_000))
    assert (paper.loss.r1_weight, paper.loss.path_weight, paper.fit.iterations) == (10, 2, 800_000)
    assert fast.generator.gene_inputs == ("kernel", "style")
    assert fast.discriminator.conditioning == "expression"
    assert fast.loss.mismatch > 0
    assert fast.loss.alignment > 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: FitConfig(precision="int8"), "precision='int8'"),
        (lambda: FitConfig(iterations=0), "iterations=0"),
        (lambda: GeneratorConfig(gene_inputs=("kernels",)), "gene_inputs='kernels'"),
        (lambda: GeneratorConfig(gene_inputs=()), "gene_inputs is empty"),
        (lambda: GANConfig.preset("slow"), "preset='slow'"),
        (lambda: GANConfig.preset("paper").replace(loss__alignment=1.0), "sees the expression"),
    ],
)
def test_wrong_values_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_unknown_names_are_named():
    with pytest.raises(TypeError, match="lr"):
        GANConfig().replace(optimizer__lr=1)
    with pytest.raises(TypeError, match="fitt"):
        GANConfig().replace(fitt__iterations=1)
    with pytest.raises(TypeError, match="batch"):
        from_dict(FitConfig, {"batch": 3})
