"""The precision of a run: what ``"auto"`` means on a machine."""

from __future__ import annotations

import functools
import time

import torch

from sst._settings import logger
from sst.nn.ops import conv3x3, modulated_conv

PAYS = 0.9  # share of float32's time below which fewer digits are worth it
REPEATS = 3


def resolve_precision(precision: str, device: torch.device) -> str:
    """What ``"auto"`` means on a device; anything else is returned as it is.

    A GPU with bf16: bf16, one without: fp16. A CPU: bf16 if that is faster there, as a short measurement shows (once a process; flags do
    not tell: with AVX512-BF16 it is twice as fast as fp32 on some CPUs and slower on others). Else fp32.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return _faster_on_a_cpu() if device.type == "cpu" else "fp32"


@functools.cache
def _faster_on_a_cpu() -> str:
    """``"bf16"`` or ``"fp32"``, whichever our own operators are faster in: forward and backward, a fraction of a second."""
    steps = [(dtype, _step(dtype)) for dtype in (torch.float32, torch.bfloat16)]
    times = {dtype: float("inf") for dtype, _ in steps}
    for repeat in range(REPEATS + 1):  # the first warms up; the two take turns, since other work comes and goes
        for dtype, step in steps:
            began = time.perf_counter()
            step()
            if repeat:
                times[dtype] = min(times[dtype], time.perf_counter() - began)
    share = times[torch.bfloat16] / times[torch.float32]
    found = "bf16" if share < PAYS else "fp32"
    logger.info("precision='auto': bf16 takes %.2f of the time of fp32 on this CPU, so %s", share, found)
    return found


def _step(dtype: torch.dtype) -> functools.partial[None]:
    """Small layers of a generator and of a discriminator, forward and backward, with maps of a dtype."""
    g = torch.Generator().manual_seed(0)  # the run's own random numbers are left alone
    shapes = {
        "maps": (4, 16, 16, 64),
        "weight": (64, 3, 3, 64),
        "up": (3, 3, 64, 64),
        "style": (4, 64),
        "taps": (4, 3, 3),
    }
    made = {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}
    inputs = {name: (x.to(dtype) if name == "maps" else x).requires_grad_() for name, x in made.items()}
    return functools.partial(_forward_and_backward, **inputs)


@torch.enable_grad()
def _forward_and_backward(
    maps: torch.Tensor, weight: torch.Tensor, up: torch.Tensor, style: torch.Tensor, taps: torch.Tensor
) -> None:
    drawn = modulated_conv(modulated_conv(maps, weight, style, taps), up, style, taps, up=True)
    judged = conv3x3(conv3x3(drawn, weight), weight, down=True)
    torch.autograd.grad(judged.sum(), (maps, weight, up, style, taps))
