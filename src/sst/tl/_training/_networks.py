"""A network and the discriminator that judges it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sst.nn import Discriminator
from sst.train import to_dict

from ._cells import count_range, log_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_matrix

    from sst.models import Registry

    from ._run import Run


def judged(
    run: Run, registry: Registry, counts: csr_matrix, build: Callable[[Registry, Any], Any], input_transform: str
) -> tuple[Any, Discriminator]:
    """What ``build`` makes and its discriminator: the same first weights in every process, statistics of the training cells' counts set."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        network = build(registry, run.config)
        discriminator = Discriminator(
            img_channels=len(registry.channels),
            resolution=registry.output_size,
            n_labels=len(registry.groups),
            n_genes=registry.n_inputs,
            n_slides=len(registry.slides) if len(registry.slides) > 1 else 0,
            input_transform=input_transform,  # type: ignore[arg-type]
            **to_dict(run.config.discriminator),
        )
    network.set_range(*count_range(counts, run.seed))
    for one in (network, discriminator):
        one.set_statistics(*log_statistics(counts))
    return network, discriminator
