"""Every model and every phase's loss on fake CUDA tensors: a tensor left on the CPU, or of the wrong type, is found without a GPU.

Fake tensors have shapes, types and devices and no values; what mixes devices raises as on a GPU. Gradients inside a loss (R1, path length)
are replaced by their shapes: autograd asks the driver for the device.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import pytest
import torch
from factories import SMALL_NETWORKS
from packaging.version import Version
from tiny_training import TINY
from torch._subclasses.fake_tensor import FakeTensorMode

from sst.nn import CellEditor, ClipTowers, Discriminator, Generator
from sst.nn.ops import _fir
from sst.train import (
    Batch,
    CLIPConfig,
    Draws,
    EditorConfig,
    InversionConfig,
    clip_task,
    editor_task,
    gan_task,
    inversion_task,
    to_dict,
    to_uint8,
    to_unit,
)

pytestmark = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.7") and not torch.cuda.is_available(),
    reason="torch 2.6 asks the driver for fake tensors too, and aborts",
)
SIDE, GENES, CHANNELS, CELLS = 16, 5, 2, 4


class FakeDraws(Draws):
    """Without a generator, which a device that is not there cannot have."""

    def __init__(self, device):
        self.device, self.size, self.rank, self.world = device, CELLS, 0, 1
        self.generator = None
        self.average = lambda value: value


@pytest.fixture(params=["fp32", "bf16"])
def gpu(request, monkeypatch):
    """A device that is not there, and whether autocast is on there."""
    for name in ("_kernel", "_doubling"):  # tensors kept for later calls would be fake ones
        monkeypatch.setattr(_fir, name, _fir._kept(getattr(_fir, name).__wrapped__))
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)

    def gradients(outputs, inputs, **_):
        return tuple(torch.zeros_like(i) for i in ([inputs] if isinstance(inputs, torch.Tensor) else inputs))

    monkeypatch.setattr(torch.autograd, "grad", gradients)
    with warnings.catch_warnings(), FakeTensorMode(), torch.device("cuda"):
        warnings.filterwarnings("error", message=".*Disabling autocast")
        yield request.param


@contextmanager
def precision(name):
    with torch.autocast("cuda", torch.bfloat16, enabled=name == "bf16"):
        yield


def batch() -> Batch:
    device = torch.device("cuda")
    counts, labels = torch.rand(CELLS, GENES, device=device), torch.zeros(CELLS, dtype=torch.int64, device=device)
    return Batch(
        index=torch.arange(CELLS, device="cpu"), images=torch.rand(CELLS, CHANNELS, SIDE, SIDE, device=device),
        expression=counts, labels=labels, other=counts.clone(), other_labels=labels.clone(),
        draws=FakeDraws(device), iteration=1, progress=torch.zeros((), device=device),
    )  # fmt: skip


def networks(config):
    g = Generator(GENES, img_channels=CHANNELS, resolution=SIDE, **to_dict(TINY.generator))
    d = Discriminator(
        img_channels=CHANNELS, resolution=SIDE, n_labels=2, n_genes=GENES, **to_dict(config.discriminator)
    )
    return g, d


def run(task, gpu):
    """Every phase's loss: one number each, on the device."""
    for phase in task.phases:
        with precision(gpu):
            values = phase.loss(batch())
        assert values["loss"].dtype == torch.float32, phase.name
        for name, value in values.items():
            assert value.device.type == "cuda", f"{phase.name}: {name}"
            assert value.ndim == 0


def test_a_tensor_left_on_the_cpu_is_found(gpu):
    """These tests can fail."""
    g, _ = networks(TINY)
    g.const = torch.nn.Parameter(torch.zeros(4, 4, g.const.shape[2], device="cpu"))
    with pytest.raises(Exception, match=r"(?i)device"):
        g(torch.randn(CELLS, g.z_dim), torch.rand(CELLS, GENES))


def test_bf16_is_in_effect(gpu):
    g, d = networks(TINY)
    seen = []
    for block in (*g.convs, *d.blocks):
        block.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with precision(gpu):
        images = g(torch.randn(CELLS, g.z_dim), torch.rand(CELLS, GENES))
        d(images, torch.zeros(CELLS, dtype=torch.int64), torch.rand(CELLS, GENES))
    assert set(seen) == {torch.bfloat16 if gpu == "bf16" else torch.float32}
    assert images.dtype == torch.float32


def test_gan(gpu):
    run(gan_task(*networks(TINY), TINY), gpu)
    no_ada = TINY.replace(loss__ada_target=0.0)
    run(gan_task(*networks(no_ada), no_ada), gpu)


def test_generating(gpu):
    g, _ = networks(TINY)
    for noise in ("random", "none"):
        assert to_uint8(g(torch.randn(CELLS, g.z_dim), torch.rand(CELLS, GENES), noise=noise)).device.type == "cuda"


def test_clip(gpu):
    config = CLIPConfig.preset("demo").replace(towers__widths=(8, 8), towers__dim=8)
    towers = ClipTowers(GENES, CHANNELS, dim=8, backbone="small", widths=(8, 8, 8, 8))
    for targets in ("soft", "own"):
        run(clip_task(towers, config.replace(targets=targets)), gpu)


@pytest.mark.parametrize(("residual", "maps"), [(False, ()), (True, (4,))])
def test_inversion(gpu, residual, maps):
    from sst.nn import PixelEncoder

    g, _ = networks(TINY)
    sizes = list(maps)
    encoder = PixelEncoder(
        CHANNELS, SIDE, num_styles=g.num_styles, w_dim=g.w_dim, widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), head_width=8,
        residual=residual, map_sizes=sizes, map_channels=[1] * len(sizes), map_width=8, norm="batch",
    )  # fmt: skip
    towers = ClipTowers(GENES, CHANNELS, dim=g.z_dim, backbone="small", widths=(8, 8, 8, 8))
    config = InversionConfig.preset("demo").replace(
        optimizer="adam", encoder__residual=residual, encoder__map_dropout=0.5
    )
    run(inversion_task(encoder, g, towers, config, channels=["a", "b"]), gpu)


def test_editor(gpu):
    config = EditorConfig.preset("demo").replace(
        **{k: v for k, v in SMALL_NETWORKS.items() if k.startswith("discriminator")}
    )
    _, d = networks(config)
    editor = CellEditor(GENES, img_channels=CHANNELS, resolution=SIDE, width=4, width_max=8, code_dim=8, flow_size=4)
    with precision(gpu):
        images = editor(torch.rand(CELLS, CHANNELS, SIDE, SIDE), torch.rand(CELLS, GENES), torch.rand(CELLS, GENES))
    assert images.device.type == "cuda"
    run(editor_task(editor, d, config), gpu)


def test_crops_to_units(gpu):
    crops = torch.zeros(CELLS, CHANNELS, SIDE, SIDE, dtype=torch.uint8)
    assert to_uint8(to_unit(crops)).dtype == torch.uint8
