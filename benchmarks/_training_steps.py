"""The steps of one training iteration, as losses of any generator and discriminator (plain or ours)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from sst.train._compile import compiled

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Steps:
    """Steps on fixed inputs; ``autocast`` is the dtype that the networks compute in (None: that of their parameters)."""

    generator: Any  # a Module, whose own attributes are called here
    discriminator: Any
    batch: int
    n_genes: int
    device: str = "cpu"
    autocast: torch.dtype | None = None

    def __post_init__(self) -> None:
        self.g = getattr(self.generator, "network", self.generator)
        self.d = getattr(self.discriminator, "network", self.discriminator)
        r = torch.Generator().manual_seed(0)
        b, g = self.batch, self.g
        self.z = torch.randn(b, g.z_dim, generator=r).to(self.device)
        self.x = torch.poisson(torch.full((b, self.n_genes), 2.0), generator=r).to(self.device)
        self.real = (torch.rand(b, g.img_channels, g.resolution, g.resolution, generator=r) * 2 - 1).to(self.device)
        self.label = (torch.arange(b) % 2).to(self.device)
        self.other = self.x.roll(1, 0)
        self.draw, self.features = self.generator, self.discriminator.image_features

    def compile(self) -> None:
        """Compile the networks of the D and the G step; R1 and path length, differentiated twice, stay eager."""
        self.draw, self.features = compiled(self.generator), compiled(self.discriminator.image_features)

    def cast(self):
        return torch.autocast(self.device, self.autocast, enabled=self.autocast is not None)

    def train(self, module: torch.nn.Module | None) -> None:
        for m in (self.generator, self.discriminator):
            m.requires_grad_(m is module)
            for p in m.parameters():
                p.grad = None

    def score(self, features: torch.Tensor) -> torch.Tensor:
        return self.discriminator.score(features, self.label, self.x)

    def generator_forward(self) -> None:
        self.train(None)
        with torch.no_grad(), self.cast():
            self.draw(self.z, self.x)

    def discriminator_forward(self) -> None:
        self.train(None)
        with torch.no_grad(), self.cast():
            self.score(self.features(self.real))

    def d_step(self) -> None:
        self.train(self.discriminator)
        with self.cast():
            with torch.no_grad():
                fake = self.draw(self.z, self.x)
            loss = F.softplus(self.score(self.features(fake))).mean()
            features = self.features(self.real)
            loss = loss + F.softplus(-self.score(features)).mean()
            if self.d.conditioning == "expression":  # real images with another cell's expression
                loss = loss + F.softplus(self.discriminator.score(features, self.label, self.other)).mean()
        loss.backward()

    def g_step(self) -> None:
        self.train(self.generator)
        with self.cast():
            loss = F.softplus(-self.score(self.features(self.draw(self.z, self.x)))).mean()
        loss.backward()

    def r1(self) -> None:
        self.train(self.discriminator)
        image = self.real.clone().requires_grad_()
        with self.cast():
            score = self.score(self.discriminator.image_features(image))
        (grad,) = torch.autograd.grad(score.sum(), image, create_graph=True)
        (grad.square().sum(dim=(1, 2, 3)).mean() * 5).backward()

    def path_length(self) -> None:
        self.train(self.generator)
        half = max(1, self.batch // 2)
        with self.cast():
            x = (self.x[:half] + self.x[-half:]) / 2
            ws = self.g.styles(self.g.mapping(self.z[:half]), x)
            image = self.generator.synthesis(ws, self.g.kernels(x))
        noise = torch.randn_like(image) / image.shape[2]
        (grad,) = torch.autograd.grad((image * noise).sum(), ws, create_graph=True)
        ((grad.square().sum(dim=2).mean(dim=1) + 1e-8).sqrt() - 1).square().mean().backward()

    @property
    def all(self) -> dict[str, Callable[[], None]]:
        return {
            "G forward": self.generator_forward,
            "D forward": self.discriminator_forward,
            "D step": self.d_step,
            "G step": self.g_step,
            "R1": self.r1,
            "path length": self.path_length,
        }
