"""The phases of the GAN: Dmain, Dreg (R1), Gmain, Greg (path length)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sst.nn import gather_rows

from ._augment import Augment
from ._losses import fakes, info_nce, logistic_real, path_lengths, r1_penalty, swap_expression
from ._phases import Phase, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from sst.nn import Discriminator, Generator

    from ._config import GANConfig, OptimizerConfig
    from ._draws import Batch

WON = 30.0  # logits between real and generated images beyond which nothing is learnt any more
COLLAPSED = 0.3  # diversity of generated cells, relative to real ones


class PathMean(nn.Module):
    """The running mean of the path lengths; a module so that checkpoints carry it."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))


class SlideStains(nn.Module):
    """What sets slides apart in light and stain: a gain and an offset of each slide and channel, 0 on average over the slides.

    The discriminator knows the slide, so it asks for the slide's light; the generator, which knows genes alone, would have to read it from them.
    Images in [-1, 1]; used in training only: what the generator draws is the slides' mean.
    """

    def __init__(self, n_slides: int, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(n_slides, channels))  # log
        self.offset = nn.Parameter(torch.zeros(n_slides, channels))

    def forward(self, images: Tensor, slides: Tensor) -> Tensor:
        """Images (B, c, h, w) of a mean slide as they are on theirs (B)."""
        gain, offset = ((p - p.mean(dim=0))[slides][:, :, None, None] for p in (self.gain, self.offset))
        return (images + 1) * gain.exp() + offset - 1


class GANLosses:
    """The loss of each phase, for one generator and one discriminator."""

    def __init__(self, generator: Generator, discriminator: Discriminator, mean: PathMean, config: GANConfig) -> None:
        self.g, self.d, self.mean, self.config = generator, discriminator, mean, config.loss
        several = discriminator.n_slides
        self.stains = SlideStains(several, generator.img_channels) if several else None
        self.augment = Augment(self.config.ada_target) if self.config.ada_target else None
        self.sees_expression = config.discriminator.conditioning == "expression"

        def run_g(z: Tensor, x: Tensor, noise: list[Tensor]) -> Tensor:
            return generator(z, x, noise=noise)

        def run_d(images: Tensor, labels: Tensor, x: Tensor, slides: Tensor | None) -> tuple[Tensor, Tensor]:
            return discriminator(images, labels, x, slides, return_embedding=True)

        self._networks = run_g, run_d
        self._run_g: Callable[..., Tensor] = run_g
        self._run_d: Callable[..., tuple[Tensor, Tensor]] = run_d

    def compile(self, transform: Callable[[Any], Any] | None) -> None:
        """Let the main phases use ``transform`` of both networks (``None``: the networks themselves); same parameters, same draws."""
        run_g, run_d = self._networks
        self._run_g, self._run_d = (transform(run_g), transform(run_d)) if transform else (run_g, run_d)

    def _generate(self, batch: Batch) -> Tensor:
        """Images of the batch's expression, in the light of their slides."""
        images = self._run_g(batch.draws.normal(self.g.z_dim), batch.expression, self._noise(batch))
        return images if self.stains is None or batch.slides is None else self.stains(images, batch.slides)

    def _noise(self, batch: Batch) -> list[Tensor]:
        """Noise of each layer, drawn like all else that belongs to a cell: however many processes share the batch."""
        return [batch.draws.normal(*shape, 1) for shape in self.g.noise_shapes]

    def _logits(self, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        images = self._augmented(images, batch)
        return self._run_d(images, batch.labels, batch.expression, batch.slides)

    def _augmented(self, images: Tensor, batch: Batch) -> Tensor:
        return self.augment(images, batch.draws) if self.augment else images

    def _alignment(self, images: Tensor, own: Tensor, slides: Tensor | None) -> Tensor:
        """InfoNCE over the whole batch, all processes' cells; within slides."""
        everyone = None if slides is None else gather_rows(slides)
        return info_nce(gather_rows(images), gather_rows(own), self.config.temperature, everyone)

    def _hold(self, batch: Batch) -> Tensor | float:
        """Factor of what rewards images for telling more of the genes than real ones do: 1, then falling to 0 (``taper``)."""
        return ((1 - batch.progress) / self.config.taper).clamp(max=1) if self.config.taper else 1.0

    def discriminator(self, batch: Batch) -> dict[str, Tensor]:
        """Real against generated images and against real ones beside another cell's expression."""
        with torch.no_grad():
            generated = self._generate(batch)
        fake_logits, _ = self._logits(generated, batch)
        real_logits, embedding = self._logits(batch.images, batch)
        sign = batch.draws.average(real_logits.detach().sign().mean())
        recorded = {"real": real_logits.mean(), "fake": fake_logits.mean(), "sign": sign}
        if self.augment:
            self.augment.follow(sign, len(real_logits) * batch.draws.world)
            recorded["augmented"] = self.augment.probability.clone()
        mismatched, aligned = None, None
        if self.sees_expression:
            own = self.d.expression_embedding(batch.expression)
            if self.config.mismatch:
                mismatched = swap_expression(real_logits, embedding, own, self.d.expression_embedding(batch.other))
                recorded["mismatched"] = mismatched.mean()
            if self.config.alignment:
                aligned = self._alignment(embedding, own, batch.slides)
                recorded["alignment"] = aligned
        loss = logistic_real(real_logits) + fakes(fake_logits, mismatched, self.config.mismatch * self._hold(batch))
        if aligned is not None:
            loss = loss + self.config.alignment * aligned
        return {"loss": loss, **recorded}

    def r1(self, batch: Batch) -> dict[str, Tensor]:
        """R1 on real images, times the interval."""
        images = self._augmented(batch.images, batch).detach().requires_grad_(True)  # noqa: FBT003
        penalty = r1_penalty(self.d(images, batch.labels, batch.expression, batch.slides), images)
        return {"loss": penalty * (self.config.r1_weight / 2 * self.config.r1_interval), "penalty": penalty}

    def generator(self, batch: Batch) -> dict[str, Tensor]:
        """Images that the discriminator takes for real ones of this expression."""
        generated = self._generate(batch)
        fake_logits, embedding = self._logits(generated, batch)
        loss, recorded = logistic_real(fake_logits), {}
        if self.sees_expression and self.config.alignment:
            aligned = self._alignment(embedding, self.d.expression_embedding(batch.expression), batch.slides)
            loss = loss + self.config.alignment * self._hold(batch) * aligned
            recorded["alignment"] = aligned
        return {"loss": loss, **recorded, "spread": generated.detach().std(dim=0).mean()}

    def path(self, batch: Batch) -> dict[str, Tensor]:
        """Path length on averaged pairs of cells, times the interval."""
        first, second = (
            batch.expression[::2],
            batch.expression[1::2],
        )  # neighbours, so that processes with shares pair the same
        count = max(len(second), 1)
        x = (first[:count] + second) / 2 if len(second) else first
        z, noise = batch.draws.normal(self.g.z_dim)[: 2 * count : 2], [n[: 2 * count : 2] for n in self._noise(batch)]
        ws = self.g.styles(self.g.mapping(z), x)
        images = self.g.synthesis(ws, self.g.kernels(x), noise=noise)
        lengths = path_lengths(images, ws, batch.draws.normal(*images.shape[1:])[: 2 * count : 2])
        with torch.no_grad():
            self.mean.value.lerp_(batch.draws.average(lengths.mean()).float(), self.config.path_decay)
        penalty = (lengths - self.mean.value).square().mean()
        return {
            "loss": penalty * (self.config.path_weight * self.config.path_interval),
            "penalty": penalty,
            "length": lengths.mean(),
        }


def adam(parameters: list[nn.Parameter], lr: float, config: OptimizerConfig, interval: int) -> torch.optim.Adam:
    """Adam, in one pass over all parameters, with rates corrected for a regulariser every ``interval`` iterations (0: never)."""
    ratio = interval / (interval + 1) if interval else 1.0
    first, second = (beta**ratio if beta else 0.0 for beta in config.betas)
    return torch.optim.Adam(parameters, lr=lr * ratio, betas=(first, second), eps=config.eps, fused=True)


def gan_task(generator: Generator, discriminator: Discriminator, config: GANConfig) -> Task:
    """The task that :func:`fit` trains; set its ``evaluate`` and ``samples`` as you like."""
    weights, optimizer = config.loss, config.optimizer
    r1 = weights.r1_interval if weights.r1_weight else 0
    path = weights.path_interval if weights.path_weight else 0
    mean = PathMean()
    losses = GANLosses(generator, discriminator, mean, config)
    phases = [Phase("D", losses.discriminator, ("discriminator",), "discriminator")]
    if r1:
        phases.append(Phase("R1", losses.r1, ("discriminator",), "discriminator", r1))
    drawn = list(generator.parameters())
    modules: dict[str, nn.Module] = {"generator": generator, "discriminator": discriminator, "path": mean}
    if losses.stains:
        modules["stains"] = losses.stains
        drawn += losses.stains.parameters()
    phases.append(Phase("G", losses.generator, ("generator", "stains")[: 1 + bool(losses.stains)], "generator"))
    if path:
        phases.append(Phase("PL", losses.path, ("generator",), "generator", path))
    if losses.augment:
        modules["augment"] = losses.augment
    return Task(
        modules=modules,
        optimizers={
            "generator": adam(drawn, optimizer.lr_generator, optimizer, path),
            "discriminator": adam(list(discriminator.parameters()), optimizer.lr_discriminator, optimizer, r1),
        },
        phases=phases,
        ema=("generator",),
        compile=losses.compile,
        recordable=True,
    )


def gan_warnings(values: dict[str, float]) -> list[str]:
    """Sentences about a training that goes wrong, from its metrics (see :attr:`Task.watch`)."""
    found = []
    if values.get("D/real", 0) - values.get("D/fake", 0) > WON and values.get("G/loss", 0) > WON / 2:
        found.append(
            "the discriminator has won: its scores of real and generated images lie far apart, and the generator learns little. "
            "Raise loss.r1_weight, or train on more cells."
        )
    if values.get("diversity", 1.0) < COLLAPSED:
        found.append(
            "mode collapse: generated cells vary far less than held-out real ones. Lower the learning rates, raise "
            "loss.r1_weight, or go back to an earlier checkpoint."
        )
    return found
