"""A GAN's training of a few seconds: cells, networks and settings."""

from __future__ import annotations

import numpy as np
import torch
from factories import SMALL_NETWORKS

from sst.nn import Discriminator, Generator
from sst.train import Cells, DataConfig, GANConfig, Task, gan_task, to_dict

TINY = GANConfig.preset("demo").replace(
    **SMALL_NETWORKS,
    loss__r1_interval=2, loss__path_interval=2, loss__path_weight=1.0, loss__ada_target=0.6, fit__batch_size=4,
    fit__iterations=10, fit__log_every=1, fit__evaluate_every=0, fit__checkpoint_every=0, fit__sample_every=0,
)  # fmt: skip


def cells() -> Cells:
    """24 cells of 2 channels, 8 px, 5 genes and two groups."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 2, 8, 8), dtype=np.uint8)
    return Cells(images, rng.poisson(4.0, (24, 5)).astype(np.float32), rng.integers(0, 2, 24), config=DataConfig())


def task(config: GANConfig = TINY) -> Task:
    """Untrained networks, always the same."""
    torch.manual_seed(0)
    g = Generator(5, img_channels=2, resolution=8, **to_dict(config.generator))
    d = Discriminator(img_channels=2, resolution=8, n_labels=2, n_genes=5, **to_dict(config.discriminator))
    return gan_task(g, d, config)
