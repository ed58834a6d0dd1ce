"""Options of the contrastive training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from sst._validate import check_choice, check_range

from ._config import PRESETS, WIDEST, DataConfig, FitConfig, Nested


@dataclass(frozen=True)
class TowersConfig:
    """Sizes of :class:`sst.nn.ClipTowers`.

    Attributes
    ----------
    dim
        Dimension of the shared space.
    backbone, widths
        Image tower: ``"resnet50"`` (the paper) or ``"small"``, with its stages' channels.
    weights
        Where the backbone starts: ``"none"`` (random), ``"imagenet"`` (torchvision's, hash-checked; looked for in torch's cache,
        else downloaded), or a path of a ``.safetensors`` or ``.pth`` state dict. ``"resnet50"`` only.
    dropout
        In both heads.
    transform
        What the expression tower sees: ``"log1p"``, that with mean 0 and standard deviation 1 a gene (``"standard"``), or the
        ``"counts"`` (the paper).
    """

    dim: int = 256
    backbone: Literal["small", "resnet50"] = "small"
    widths: tuple[int, ...] = (32, 64, 128, 192)
    weights: str = "none"
    dropout: float = 0.1
    transform: Literal["log1p", "standard", "counts"] = "log1p"

    def __post_init__(self) -> None:
        check_range("dim", self.dim, low=2, high=WIDEST)
        for width in self.widths:
            check_range("widths", width, low=1, high=WIDEST)
        check_range("dropout", self.dropout, low=0, high=1)
        check_choice("backbone", self.backbone, ("small", "resnet50"))
        check_choice("transform", self.transform, ("log1p", "standard", "counts"))
        if self.backbone == "small" and self.weights != "none":
            msg = f"weights={self.weights!r}: the small backbone has no published weights; use backbone='resnet50'."
            raise ValueError(msg)


@dataclass(frozen=True)
class CLIPConfig(Nested):
    """Everything that :func:`sst.tl.train_clip` may be told.

    Attributes
    ----------
    towers
        The networks.
    targets, temperature
        ``"soft"``: :func:`sst.train.soft_contrastive_loss` (the paper); ``"own"``: :func:`sst.train.contrastive_loss`; and T of either.
    lr, weight_decay
        Of AdamW.
    schedule
        ``"plateau"`` (the paper), or ``"cosine"``: up over the first iterations, then down to 0 at the last.
    plateau_factor, plateau_patience
        The learning rate is multiplied by the factor when the held-out loss has not fallen for so many evaluations.
    epochs
        Passes over the training cells; sets ``fit.iterations`` (0: ``fit.iterations`` holds).
    data, fit
        How cells arrive, and the loop.
    """

    towers: TowersConfig = field(default_factory=TowersConfig)
    targets: Literal["soft", "own"] = "soft"
    temperature: float = 1.0
    lr: float = 1e-3
    weight_decay: float = 1e-3
    schedule: Literal["plateau", "cosine"] = "plateau"
    plateau_factor: float = 0.5
    plateau_patience: int = 2
    epochs: float = 0.0
    data: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=lambda: FitConfig(batch_size=64))

    def __post_init__(self) -> None:
        for name in ("temperature", "lr"):
            check_range(name, getattr(self, name), low=0, open_low=True)
        check_choice("targets", self.targets, ("soft", "own"))
        check_choice("schedule", self.schedule, ("plateau", "cosine"))
        check_range("plateau_factor", self.plateau_factor, low=0, high=1, open_low=True)
        for name in ("weight_decay", "plateau_patience", "epochs"):
            check_range(name, getattr(self, name), low=0)

    @classmethod
    def preset(cls, name: Literal["paper", "fast", "demo"] = "fast") -> CLIPConfig:
        """A named configuration.

        ``"paper"``: ResNet-50, raw counts, soft targets, batch 64, 2 epochs. ``"fast"``: the small image tower, standardised log
        counts, each cell's own partner as target, a cosine of the learning rate, larger batches (more strangers a row), 10 epochs;
        the default. ``"demo"``: the same, narrow, for a CPU.
        """
        check_choice("preset", name, PRESETS)
        if name == "paper":
            return cls(towers=TowersConfig(backbone="resnet50", weights="imagenet", transform="counts"), epochs=2)
        loss: Any = {"targets": "own", "temperature": 0.1, "schedule": "cosine"}
        if name == "fast":
            towers = TowersConfig(transform="standard")
            return cls(towers=towers, epochs=10, fit=FitConfig(batch_size=256, precision="auto"), **loss)
        fit = FitConfig(
            iterations=400, batch_size=64, log_every=20, evaluate_every=100, checkpoint_every=200, sample_every=0
        )
        return cls(towers=TowersConfig(dim=64, widths=(16, 32, 48, 64), transform="standard"), fit=fit, **loss)
