"""How long, how much disk and how much memory an experiment takes, said before it starts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ._plan import bytes_of, free_disk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ._studies import Study

# GFLOP a cell at 128 px, forward: counted layer by layer (2 FLOP a multiply-add)
_GAN_ITERATION = 13_100 / 16  # both networks' steps and their regularisers, a cell
_INVERSION = 3 * 15 + 2 * 61.4 + 3 * 8.2  # pixel encoder; frozen generator, forward and through; identity network
_CLIP = 3 * 2.7
_GENERATE = 61.4
_SHARE = {"cuda": 0.25, "mps": 0.2, "cpu": 0.35}  # of the matrix-product rate, that training reaches
_CELLS_PER_SECOND = {"read": 700, "measure": 150}  # of one core: reading and cutting; nuclei


def make_plan(
    study: Study,
    inputs: Mapping[str, Path],
    out: Path,
    *,
    preset: str,
    iterations: int | None,
    repeats: int,
    n_max: int,
) -> dict[str, Any]:
    """Stages with hours, and the disk and memory that are needed and there.

    Rates are measured on this machine by a matrix product of half a second; figures are good to a factor of two or so.
    """
    import torch

    from sst.train import CLIPConfig, GANConfig, InversionConfig, free_memory

    device, rate = measure_rate()
    size, channels = int(study.crop["output_size"]), len(study.channels)
    cells = _prepared_cells(out) or sum(study.cells.values())
    image = channels * size * size
    area = (size / 128) ** 2
    useful = rate * _SHARE.get(device, 0.2)
    named: Any = preset
    fits = {"gan": GANConfig.preset(named).fit, "inversion": InversionConfig.preset(named).fit}
    clip = CLIPConfig.preset(named).fit
    steps = {name: iterations or fit.iterations for name, fit in fits.items()}
    narrow = preset == "demo"
    work = {
        "gan": steps["gan"] * fits["gan"].batch_size * _GAN_ITERATION,
        "clip": (iterations * clip.batch_size if iterations else 2 * cells) * _CLIP,
        "inversion": steps["inversion"] * fits["inversion"].batch_size * _INVERSION,
    }
    sampled = min(n_max, cells // 10) * 2 * repeats
    hours: dict[str, float | None] = {
        "prepare": cells / _CELLS_PER_SECOND["read"] / 3600,
        **{name: None if narrow else area * gflop / useful / 3600 for name, gflop in work.items()},
        "evaluate": None
        if narrow
        else 18 * (sampled * _GENERATE * area / useful + 2 * 5000 / _CELLS_PER_SECOND["measure"]) / 3600,
    }
    disk = {
        "inputs": sum(bytes_of(p) for p in inputs.values()) / 1e9,
        "unpacked": sum(2 * bytes_of(p) for p in inputs.values() if p.suffix == ".zip") / 1e9,
        "crops as read": cells * image * 2 / 1e9,
        "crops, 8 bit": cells * image / 1e9,
        "counts": cells * study.n_genes * 0.11 * 8 * 2 / 1e9,
        "models and checkpoints": 0.1 if narrow else 3.0,
    }
    return {
        "study": study.name,
        "device": device,
        "rate_tflops": rate / 1000,
        "cells": cells,
        "hours": hours,
        "iterations": steps,
        "disk_gb": disk,
        "disk_needed_gb": sum(v for k, v in disk.items() if k != "inputs"),
        "disk_free_gb": free_disk(out) / 1e9,
        "memory_gb": {
            "crops (kept in memory if they fit, else streamed)": cells * image / 1e9,
            "counts": cells * study.n_genes * 0.11 * 8 / 1e9,
        },
        "memory_free_gb": free_memory(torch.device("cpu")) / 1e9,
    }


def format_plan(plan: Mapping[str, Any], stages: Sequence[str], done: Sequence[str]) -> str:
    """The plan as text."""
    lines = [
        f"{plan['study']} on {plan['device']} (matrix products: {plan['rate_tflops']:.2g} TFLOP/s), about {plan['cells']:,} cells",
        "",
        "stage        time, about",
    ]
    for stage in stages:
        value = plan["hours"].get(stage)
        text = "done" if stage in done else "minutes to hours (narrow networks)" if value is None else _duration(value)
        steps = plan["iterations"].get(stage)
        lines.append(f"{stage:<12} {text}{f'  ({steps:,} iterations)' if steps else ''}")
    lines += ["", "disk"]
    lines += [f"  {name:<24} {value:8.1f} GB" for name, value in plan["disk_gb"].items()]
    lines.append(f"  needed {plan['disk_needed_gb']:.1f} GB beside the inputs, free {plan['disk_free_gb']:.1f} GB")
    lines += ["memory"]
    lines += [f"  {name}: {value:.1f} GB" for name, value in plan["memory_gb"].items()]
    lines.append(f"  free {plan['memory_free_gb']:.1f} GB")
    return "\n".join(lines)


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    return f"{hours:.1f} h" if hours < 72 else f"{hours / 24:.0f} days"


def measure_rate(seconds: float = 0.25) -> tuple[str, float]:
    """Device, and GFLOP/s of a matrix product on it: the better of bfloat16 and float32, as training chooses."""
    import torch

    from sst._settings import settings

    device = settings.torch_device()
    size = 4096 if device.type == "cuda" else 768
    best = 0.0
    for dtype in (torch.bfloat16, torch.float32):
        a = torch.randn(size, size, device=device).to(dtype)
        float((a @ a)[0, 0])  # warm up; reading a number waits for the device
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            float((a @ a)[0, 0])
            count += 1
        best = max(best, 2 * size**3 * count / (time.perf_counter() - start) / 1e9)
    return device.type, best


def _prepared_cells(out: Path) -> int:
    """Cells of the prepared object, 0 before it is there."""
    if not (out / "prepare.json").exists():
        return 0
    from sst.io import open_store

    return int(open_store(out / "prepared.zarr").n_obs)
