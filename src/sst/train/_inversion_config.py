"""Options of the inversion's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sst._validate import check_choice, check_range

from ._config import DEEPEST, PRESETS, WIDEST, DataConfig, FitConfig, Nested


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of :class:`sst.nn.PixelEncoder`.

    Attributes
    ----------
    widths, depths
        Channels and residual blocks of the four stages; the defaults are ResNet-34.
    head_width
        Channels inside a style head.
    weights
        Where the stages start: ``"none"``, ``"imagenet"`` (ResNet-34 widths only), or a path of a state dict.
    residual
        The encoder also sees the reconstruction so far, and predicts what to add to the code (ReStyle).
    maps
        Side of the largest maps that the encoder adds to the generator's feature maps, as a share of the image's (0: none, the
        paper; 0.25: maps up to 16 px for images of 64 px). Vectors of styles say what is drawn; maps say where.
    map_channels
        ``"one"``: a map lifts all channels of a feature map alike; ``"all"``: each channel its own.
    map_width
        Channels of the network that makes them.
    map_dropout
        Share of the training images that are drawn without their maps, so that the styles, which the genes share in, still do what they
        can.
    norm
        ``"batch"`` (ResNet's) or ``"group"`` (each image by itself: the same in training and use, on one process or several).
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    depths: tuple[int, ...] = (3, 4, 6, 3)
    head_width: int = 512
    weights: str = "none"
    residual: bool = False
    maps: float = 0.0
    map_channels: Literal["one", "all"] = "one"
    map_width: int = 32
    map_dropout: float = 0.0
    norm: Literal["batch", "group"] = "batch"

    def __post_init__(self) -> None:
        check_range("head_width", self.head_width, low=1, high=WIDEST)
        check_range("maps", self.maps, low=0, high=1)
        check_range("map_dropout", self.map_dropout, low=0, high=1)
        check_range("map_width", self.map_width, low=1, high=WIDEST)
        check_choice("norm", self.norm, ("batch", "group"))
        check_choice("map_channels", self.map_channels, ("one", "all"))
        if len(self.widths) != 4 or len(self.depths) != 4:
            msg = f"widths={self.widths} and depths={self.depths} must name four stages each."
            raise ValueError(msg)
        for width, depth in zip(self.widths, self.depths, strict=True):
            check_range("widths", width, low=1, high=WIDEST)
            check_range("depths", depth, low=1, high=DEEPEST)


@dataclass(frozen=True)
class InversionLossConfig:
    """Weights of the terms, and which networks compute them.

    Attributes
    ----------
    l2, perceptual_weight, identity_weight
        Weights (the paper: 15, 0.5, 0.5). A weight of 0 leaves the term out.
    perceptual
        ``"lpips"`` (AlexNet, the ``lpips`` package), ``"clip"`` (the same distance over the own CLIP image tower; no download),
        or ``"auto"``: ``"lpips"`` if its weights are already on this machine, else ``"clip"``. Nothing is downloaded for ``"auto"``.
    identity
        ``"moco"`` (ResNet-50, MoCo v2), ``"clip"``, or ``"auto"`` likewise.
    perceptual_weights, identity_weights
        Path of AlexNet's, of MoCo's weights (``"none"``: where :func:`sst.models.weights_path` keeps them).
    response
        Weight of what keeps genes heard: other counts must change the image under the cell's code as they change it without one
        (8 x 8 means). 0 in the paper.
    pairs
        Weight of drawn cells whose counterfactual is known, a quarter of a batch: shown G(z, g), the code must lead to G(z, g) and, under
        g', to G(z, g'). 0 in the paper.
    """

    l2: float = 15.0
    perceptual_weight: float = 0.5
    identity_weight: float = 0.5
    perceptual: Literal["auto", "lpips", "clip"] = "auto"
    identity: Literal["auto", "moco", "clip"] = "auto"
    perceptual_weights: str = "none"
    identity_weights: str = "none"
    response: float = 0.0
    pairs: float = 0.0

    def __post_init__(self) -> None:
        for name in ("l2", "perceptual_weight", "identity_weight", "response", "pairs"):
            check_range(name, getattr(self, name), low=0)
        check_choice("perceptual", self.perceptual, ("auto", "lpips", "clip"))
        check_choice("identity", self.identity, ("auto", "moco", "clip"))
        if not (self.l2 or self.perceptual_weight or self.identity_weight):
            msg = "all weights of the inversion's loss are 0: give at least one term a weight."
            raise ValueError(msg)


@dataclass(frozen=True)
class InversionConfig(Nested):
    """Everything that :func:`sst.tl.train_inversion` may be told.

    Attributes
    ----------
    encoder, loss
        E_p, and what it is trained for.
    lr, optimizer
        ``"ranger"`` (RAdam, LookAhead, gradient centralisation: the paper) or ``"adam"``.
    passes
        Encoder passes a training step; more than 1 needs ``encoder.residual``.
    frozen_precision
        Precision of the frozen networks: ``"bf16"``, ``"fp32"``, or ``"auto"`` (bf16 on a GPU).
    data, fit
        How cells arrive, and the loop.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    loss: InversionLossConfig = field(default_factory=InversionLossConfig)
    lr: float = 1e-4
    optimizer: Literal["ranger", "adam"] = "ranger"
    passes: int = 1
    frozen_precision: Literal["auto", "bf16", "fp32"] = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=lambda: FitConfig(batch_size=8))

    def __post_init__(self) -> None:
        check_range("lr", self.lr, low=0, open_low=True)
        check_range("passes", self.passes, low=1)
        check_choice("optimizer", self.optimizer, ("ranger", "adam"))
        check_choice("frozen_precision", self.frozen_precision, ("auto", "bf16", "fp32"))
        if self.passes > 1 and not self.encoder.residual:
            msg = f"passes={self.passes} needs an encoder that sees the reconstruction: encoder.residual=True."
            raise ValueError(msg)

    @classmethod
    def preset(cls, name: Literal["paper", "fast", "demo"] = "fast") -> InversionConfig:
        """A named configuration.

        ``"paper"``: ResNet-34 from ImageNet, batch 8, lr 1e-4, 800,000 iterations, LPIPS and MoCo, no maps. ``"fast"``: ResNet-34
        with maps, batch 32 at lr 4e-4 in bf16, 100,000 iterations; the default. ``"demo"``: narrow, for small images on a CPU.
        """
        check_choice("preset", name, PRESETS)
        if name == "paper":
            return cls(
                encoder=EncoderConfig(weights="imagenet"),
                loss=InversionLossConfig(perceptual="lpips", identity="moco"),
                fit=FitConfig(iterations=800_000, batch_size=8),
            )
        if name == "fast":
            encoder = EncoderConfig(maps=0.25, map_dropout=0.5)
            return cls(encoder=encoder, lr=4e-4, fit=FitConfig(iterations=100_000, batch_size=32, precision="auto"))
        fit = FitConfig(
            iterations=1_500, batch_size=16, log_every=25, evaluate_every=250, checkpoint_every=500, sample_every=500
        )
        encoder = EncoderConfig(widths=(24, 32, 48, 64), depths=(1, 1, 1, 1), head_width=64, maps=0.25, map_dropout=0.5)
        return cls(encoder=encoder, lr=2e-3, fit=fit)
