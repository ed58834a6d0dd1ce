"""Two gloo processes with half a batch each train the editor as one process with the whole batch does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sst.nn import CellEditor, Discriminator
from sst.train import Cells, DataConfig, EditorConfig, editor_task, fit, to_dict

CPU = torch.device("cpu")


def train(folder: str, out: str) -> None:
    """All phases. Which cells are edited in part, and which are edited back, is each process' own affair: left out, to compare exactly."""
    config = EditorConfig.preset("demo").replace(
        editor__width=4, editor__width_max=8, editor__code_dim=8, discriminator__channel_base=64,
        discriminator__channel_max=8, discriminator__embed_dim=8, loss__partial=0.0, loss__cycle=0.0, loss__r1_interval=2,
        fit__batch_size=8, fit__iterations=4, fit__log_every=2, fit__evaluate_every=0, fit__checkpoint_every=4,
        fit__sample_every=0,
    )  # fmt: skip
    torch.set_num_threads(1)
    torch.manual_seed(0)
    editor = CellEditor(5, img_channels=2, resolution=16, **to_dict(config.editor)).double()
    d = Discriminator(img_channels=2, resolution=16, n_labels=2, n_genes=5, **to_dict(config.discriminator)).double()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 2, 16, 16), dtype=np.uint8)
    counts = rng.poisson(4.0, (24, 5)).astype(np.float32)
    cells = Cells(images, counts, rng.integers(0, 2, 24), config=DataConfig())
    task = editor_task(editor, d, config)
    result = fit(task, cells, config.fit, folder=folder, device=CPU)
    assert result.iterations == 4
    if not Path(out).exists():
        weights = {f"{k}.{n}": v for k, m in task.modules.items() for n, v in m.state_dict().items()}
        save_file({k: v.clone().contiguous() for k, v in weights.items()}, out)


@pytest.mark.slow
def test_two_processes_train_as_one(by_one_and_two):
    one, first, second = by_one_and_two(sys.modules[__name__])
    assert one.keys() == first.keys()
    for name, value in one.items():
        assert torch.equal(first[name], second[name]), name  # the processes agree to the last bit
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6, msg=name)
