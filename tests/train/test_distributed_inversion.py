"""Two gloo processes with half a batch each train CLIP and inversion as one process with the whole batch does."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sst.nn import ClipTowers, CosineDistance, Generator, MapDistance, PixelEncoder
from sst.train import (
    Cells,
    CLIPConfig,
    DataConfig,
    EncoderConfig,
    FitConfig,
    InversionConfig,
    clip_task,
    fit,
    inversion_task,
)

CPU = torch.device("cpu")
FIT = FitConfig(iterations=12, batch_size=8, log_every=4, evaluate_every=6, checkpoint_every=6, sample_every=0)


def make_cells(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (24, 2, 16, 16), dtype=np.uint8), rng.poisson(4.0, (24, 5)).astype(np.float32)


def train(folder: str, out: str) -> None:
    """Both trainings; dropout is off, the one thing that is drawn by each process for its own cells."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cells = Cells(*make_cells(0), np.zeros(24, dtype=int), config=DataConfig(jitter=0.5))
    held_out: tuple = tuple(torch.from_numpy(part) for part in make_cells(1))
    towers = ClipTowers(5, 2, dim=8, widths=(8, 12), dropout=0.0)
    task = clip_task(towers, CLIPConfig(fit=FIT), held_out)
    first = fit(task, cells, FIT, folder=f"{folder}/clip", device=CPU).history
    sizes = {"img_channels": 2, "resolution": 16, "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8}
    generator = Generator(5, mapping_layers=2, gene_layers=2, gene_width=8, **sizes)
    kind = EncoderConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), head_width=8, residual=True, maps=0.5)
    config = InversionConfig(encoder=kind, passes=2, lr=1e-3, fit=FIT)
    encoder = PixelEncoder(
        2, 16, num_styles=6, w_dim=8, widths=kind.widths, depths=kind.depths, head_width=8, residual=True,
        map_sizes=(4, 8, 8), map_channels=(1, 1, 1), map_width=8,
    )  # fmt: skip
    task = inversion_task(
        encoder, generator, towers, config, channels=["marker", "DAPI"], held_out=held_out,
        perceptual=MapDistance(towers.image_backbone), identity=CosineDistance(towers.image_backbone, rgb=False),
    )  # fmt: skip
    second = fit(task, cells, FIT, folder=f"{folder}/inversion", device=CPU).history
    weights = {f"{k}.{n}": v for k, m in (("clip", towers), ("e", encoder)) for n, v in m.state_dict().items()}
    weights |= {f"average.{n}": v for n, v in task.averages["encoder"].state_dict().items()}
    weights["rank"] = torch.tensor(first["rank"].dropna().to_numpy())
    weights["psnr"] = torch.tensor(second["psnr"].dropna().to_numpy())
    save_file({k: v.clone().contiguous() for k, v in weights.items()}, out)


@pytest.mark.slow
def test_two_processes_train_as_one(by_one_and_two):
    one, first, second = by_one_and_two(sys.modules[__name__])
    assert one.keys() == first.keys()
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name  # to the last bit, running statistics too
        torch.testing.assert_close(first[name], value, rtol=2e-3, atol=2e-4, msg=name)
