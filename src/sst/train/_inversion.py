"""The inversion's training, as a task for the loop: only the pixel encoder learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sst.nn import Code, base_code, decode

from ._draws import to_uint8, to_unit
from ._inversion_loss import inversion_loss, pixel_loss
from ._phases import Phase, Task

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from sst.nn import ClipTowers, Generator, PixelEncoder

    from ._draws import Batch
    from ._inversion_config import InversionConfig
    from ._inversion_loss import Distance


def freeze(module: nn.Module) -> nn.Module:
    """Evaluation mode, no gradients for its parameters (they still pass through it)."""
    return module.eval().requires_grad_(False)  # noqa: FBT003


def in_bf16(precision: str, device: torch.device) -> bool:
    """Whether frozen networks run in bf16: ``"auto"`` means on a GPU, and fp32 elsewhere."""
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def encode(
    encoder: PixelEncoder, generator: Generator, base: Tensor, images: Tensor, counts: Tensor, *, passes: int = 1
) -> Code:
    """Code after ``passes`` passes of the encoder.

    With an encoder that sees the reconstruction (``encoder.residual``) each pass adds what the encoder says about the image
    and the reconstruction so far (ReStyle). With any other, later passes feed the difference back in code space:
    ``code += E(x) - E(G(code))``, which stands still once image and reconstruction have the same code.
    """
    if not encoder.residual:
        first = code = encoder(images)
        for _ in range(passes - 1):
            code = code + first - encoder(decode(generator, base, code, counts).float())
        return code
    code = encoder(images, decode(generator, base, no_code(generator, len(images)), counts).float())
    for _ in range(passes - 1):
        code = code + encoder(images, decode(generator, base, code, counts).float())
    return code


def no_code(generator: Generator, n: int) -> Code:
    """The code of ``n`` cells of which nothing is known: zero, no maps."""
    return Code(generator.const.new_zeros(n, generator.num_styles, generator.w_dim))


def _means(images: Tensor) -> Tensor:
    """Means of 8 x 8 squares of the image, (n, c, 8, 8)."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 8)


def response_loss(
    generator: Generator, base: Tensor, code: Code, counts: Tensor, others: Tensor, output: Tensor
) -> Tensor:
    """How far the response to genes under the cell's code is from the generator's own without it, (n,).

    The difference that other counts make to an image, ``dec(code, g') - dec(code, g)``, against the same with no code at all, both as
    8 x 8 means: the code says where things lie, so that single pixels have no reason to agree.

    Parameters
    ----------
    generator, base, code
        As :func:`sst.nn.decode` takes them.
    counts, others
        The cells' own counts g and other cells' g', (n, p).
    output
        ``dec(code, g)``, (n, c, h, w).
    """
    with torch.no_grad():
        nothing = no_code(generator, len(base))
        wanted = decode(generator, base, nothing, others).float() - decode(generator, base, nothing, counts).float()
    return (_means(decode(generator, base, code, others).float() - output) - _means(wanted)).square().mean((1, 2, 3))


def drawn_pairs(
    generator: Generator, towers: ClipTowers, counts: Tensor, others: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One drawn cell under two expressions, and its base code: G(z, g), G(z, g') and ``mapping(E_c(G(z, g)))``.

    The only cells whose counterfactual is known: an encoder that is shown the first must lead the decoder to the second.
    """
    w = generator.mapping(torch.randn(len(counts), generator.z_dim, device=counts.device))
    nothing = no_code(generator, len(counts))
    first, second = (decode(generator, w, nothing, x).float().clamp(-1, 1) for x in (counts, others))
    return first, second, base_code(generator, towers.encode_image(first)).float()


def _without_some_maps(code: Code, share: float) -> Code:
    """The code with the maps of a random ``share`` of the cells set to 0; the draws are the process' own."""
    if not share or not code.maps:
        return code
    kept = (torch.rand(len(code.styles), 1, 1, 1, device=code.styles.device) >= share).to(code.styles)
    return Code(code.styles, tuple(m * kept for m in code.maps))


@torch.no_grad()
def reconstruction_quality(
    encoder: PixelEncoder,
    generator: Generator,
    towers: ClipTowers,
    images: Tensor,
    counts: Tensor,
    *,
    channels: list[str],
    passes: int = 1,
    batch_size: int = 64,
) -> dict[str, float]:
    """PSNR (dB) and SSIM of reconstructions of held-out cells, over all channels and per channel.

    Parameters
    ----------
    encoder, generator, towers
        Run as they are (put them into evaluation mode first).
    images, counts
        (n, c, h, w) uint8 and (n, p).
    channels
        Names of the channels.
    passes
        Encoder passes.
    batch_size
        Cells a step.
    """
    from sst.metrics import psnr, ssim

    device = next(encoder.parameters()).device
    made = []
    for start in range(0, len(images), batch_size):
        rows = slice(start, start + batch_size)
        real, x = to_unit(images[rows].to(device)), counts[rows].to(device).float()
        base = base_code(generator, towers.encode_image(real))
        code = encode(encoder, generator, base, real, x, passes=passes)
        made.append(to_uint8(decode(generator, base, code, x)).cpu().numpy())
    real_images, output = images.cpu().numpy(), np.concatenate(made)
    out = {"psnr": float(psnr(real_images, output).mean()), "ssim": float(ssim(real_images, output).mean())}
    for k, name in enumerate(channels):
        pair = real_images[:, k : k + 1], output[:, k : k + 1]
        out[f"psnr {name}"], out[f"ssim {name}"] = float(psnr(*pair).mean()), float(ssim(*pair).mean())
    return out


def make_optimizer(module: nn.Module, config: InversionConfig) -> torch.optim.Optimizer:
    """Ranger (Wright 2019, as in pytorch_optimizer) or Adam over a module's parameters."""
    if config.optimizer == "adam":
        return torch.optim.Adam(module.parameters(), lr=config.lr)
    from ._ranger import Ranger

    return Ranger(module.parameters(), lr=config.lr)


def inversion_task(
    encoder: PixelEncoder,
    generator: Generator,
    towers: ClipTowers,
    config: InversionConfig,
    *,
    channels: list[str],
    perceptual: Distance | None = None,
    identity: Distance | None = None,
    held_out: tuple[Tensor, Tensor] | None = None,
) -> Task:
    """Modules, optimiser and phase of the inversion's training.

    Parameters
    ----------
    encoder
        Trained in place; its running average is ``task.averages["encoder"]``.
    generator, towers, perceptual, identity
        Frozen here. Gradients pass through generator and distances to the encoder; everything about the real image alone (E_c,
        the distances' targets) runs without any.
    config
        Weights, optimiser, passes, precision of the frozen parts.
    channels
        Names, for the table of metrics.
    held_out
        Images (n, c, h, w) uint8 and counts (n, p) of cells that are not trained on.
    """
    distances: dict[str, Any] = {
        name: network for name, network in (("perceptual", perceptual), ("identity", identity)) if network is not None
    }
    modules: dict[str, nn.Module] = {"encoder": encoder, "generator": generator, "towers": towers, **distances}
    for name, module in modules.items():
        if name != "encoder":
            freeze(module)
    encoder.train()
    importance = {"perceptual": config.loss.perceptual_weight, "identity": config.loss.identity_weight}

    def loss(batch: Batch) -> dict[str, Tensor]:
        real, counts = batch.images, batch.expression.clamp_min(0)
        half = in_bf16(config.frozen_precision, real.device)
        generator.compute_dtype = "bf16" if half else "fp32"
        low: AbstractContextManager[Any] = torch.autocast(real.device.type, dtype=torch.bfloat16, enabled=half)
        with torch.no_grad(), low:
            base = base_code(generator, towers.encode_image(real)).float()
            parts: Any = {
                name: (importance[name], network, network.targets(real)) for name, network in distances.items()
            }
            nothing = no_code(generator, len(real))
            current = decode(generator, base, nothing, counts).float() if encoder.residual else None
        total, found = real.new_zeros(()), {}
        code: Code | None = None
        for _ in range(config.passes):
            step = encoder(real, current).each(torch.Tensor.float)
            code = step if code is None else code.each(torch.Tensor.detach) + step
            shown = _without_some_maps(code, config.encoder.map_dropout)
            with low:
                output = decode(generator, base, shown, counts).float()
                found = inversion_loss(output, real, l2=config.loss.l2, **parts)
            current = output.detach()
            total = total + found.pop("total").float().mean() / config.passes
        if config.loss.response:
            with low:
                found["response"] = response_loss(generator, base, shown, counts, counts.roll(1, 0), output)
            total = total + config.loss.response * found["response"].mean()
        n = len(real) // 4
        if config.loss.pairs and n:
            with torch.no_grad(), low:
                first, second, base = drawn_pairs(generator, towers, counts[:n], counts.roll(1, 0)[:n])
            code = encode(encoder, generator, base, first, counts[:n], passes=config.passes).each(torch.Tensor.float)
            with low:
                both = [decode(generator, base, code, x).float() for x in (counts[:n], counts.roll(1, 0)[:n])]
            found["pairs"] = (pixel_loss(both[0], first) + pixel_loss(both[1], second)) / 2
            total = total + config.loss.pairs * found["pairs"].mean()
        return {"loss": total, **{name: value.float().mean() for name, value in found.items()}}

    def evaluate() -> dict[str, float]:
        images, counts = held_out  # type: ignore[misc]
        found = reconstruction_quality(
            task.averages["encoder"],  # type: ignore[arg-type]
            generator,
            towers,
            images,
            counts,
            channels=channels,
            passes=config.passes,
        )
        return found | {"distance": 255 * 10 ** (-found["psnr"] / 20)}  # grey values; the larger PSNR is the smaller

    def samples() -> np.ndarray:
        images, counts = (part[:8] for part in held_out)  # type: ignore[union-attr]
        device = next(encoder.parameters()).device
        real, x = to_unit(images.to(device)), counts.to(device).float()
        average: Any = task.averages["encoder"]
        with torch.no_grad():
            base = base_code(generator, towers.encode_image(real))
            code = encode(average, generator, base, real, x, passes=config.passes)
            made = to_uint8(decode(generator, base, code, x)).cpu().numpy()
        rows = [
            np.concatenate(list(stack[:, k]), axis=1) for k in range(made.shape[1]) for stack in (images.numpy(), made)
        ]
        return np.concatenate(rows, axis=0)

    extra: dict[str, Any] = {"evaluate": evaluate, "samples": samples} if held_out is not None else {}
    task = Task(
        modules=modules,
        optimizers={"encoder": make_optimizer(encoder, config)},
        phases=[Phase("inversion", loss, trains=("encoder",), optimizer="encoder")],
        ema=("encoder",),
        **extra,
    )
    return task
