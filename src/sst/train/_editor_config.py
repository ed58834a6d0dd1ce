"""Options of the editor's training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sst._validate import check_choice, check_range

from ._config import DEEPEST, WIDEST, DataConfig, DiscriminatorConfig, FitConfig, Nested, OptimizerConfig

EDITOR_PRESETS = ("fast", "demo")


@dataclass(frozen=True)
class EditorSizes:
    """Sizes of :class:`sst.nn.CellEditor` (names as there)."""

    width: int = 32
    width_max: int = 256
    code_dim: int = 128
    blocks: int = 2
    flow_size: int = 8

    def __post_init__(self) -> None:
        for name in ("width", "width_max", "code_dim", "flow_size"):
            check_range(name, getattr(self, name), low=1, high=WIDEST)
        check_range("blocks", self.blocks, low=1, high=DEEPEST)


@dataclass(frozen=True)
class EditorLossConfig:
    """Weights and intervals of the objective.

    Attributes
    ----------
    mismatch
        Share of the fakes' loss that real images with *another cell's expression* make up.
    alignment, temperature
        Weight and temperature of InfoNCE between image and expression embeddings, in both networks' losses.
    r1_weight, r1_interval
        ``r1_weight / 2 * |grad D|^2`` on real images, every so many iterations (0: never), scaled by the interval.
    cycle
        Weight of the mean absolute difference between a cell and the same cell edited and edited back, in units of [-1, 1].
    partial
        Share of each batch of which a random set of genes alone is edited. No real cell has such an expression: the discriminator does not
        judge them, the response, the effort and the cycle do.
    response
        Weight of the distance between the change of smooth traits of the crop (:func:`sst.nn.traits`, in standard deviations) and the change that a regression on real cells expects of the edit.
    effort
        Weight of what an edit does beside scaling the cell and multiplying its channels (:meth:`sst.nn.Effects.effort`): what need not change
        stays, also its noise, and a stain is not added to where it can be multiplied.
    taper
        Over this last share of the run, ``mismatch`` and the editor's ``alignment`` fall to 0 (0: never): see :class:`LossConfig`.
    settle
        Over this last share of the run, both learning rates fall to 0 (0: never).
    """

    mismatch: float = 0.5
    alignment: float = 0.3
    temperature: float = 0.1
    r1_weight: float = 2.0
    r1_interval: int = 16
    cycle: float = 10.0
    partial: float = 1 / 3
    response: float = 4.0
    effort: float = 0.5
    taper: float = 0.25
    settle: float = 0.4

    def __post_init__(self) -> None:
        for name in ("alignment", "r1_weight", "r1_interval", "cycle", "response", "effort"):
            check_range(name, getattr(self, name), low=0)
        for name in ("mismatch", "partial", "taper", "settle"):
            check_range(name, getattr(self, name), low=0, high=1)
        check_range("temperature", self.temperature, low=0, open_low=True)


@dataclass(frozen=True)
class EditorConfig(Nested):
    """Everything that :func:`sst.tl.train_editor` may be told about the model and its training.

    Attributes
    ----------
    editor, discriminator
        Sizes of both networks; the discriminator sees the expression.
    loss, optimizer
        The objective, and Adam (``optimizer.lr_generator`` is the editor's).
    data, fit
        How cells arrive, and the loop.
    """

    editor: EditorSizes = field(default_factory=EditorSizes)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: EditorLossConfig = field(default_factory=EditorLossConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr_generator=0.001))
    data: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        if self.discriminator.conditioning != "expression":
            msg = (
                f"discriminator.conditioning={self.discriminator.conditioning!r}: an editor learns what genes do from a "
                "discriminator that sees them. Possible: 'expression'."
            )
            raise ValueError(msg)

    @classmethod
    def preset(cls, name: Literal["fast", "demo"] = "fast") -> EditorConfig:
        """A named configuration.

        ``"fast"``: for images of 64 to 256 px on a GPU, in bf16 where there is; the default. ``"demo"``: narrow, for images of 32 px,
        minutes on a CPU.
        """
        check_choice("preset", name, EDITOR_PRESETS)
        if name == "fast":
            return cls(
                discriminator=DiscriminatorConfig(channel_base=8192, channel_max=256),
                fit=FitConfig(iterations=100_000, precision="auto"),
            )
        return cls(
            editor=EditorSizes(width=32, width_max=64, code_dim=64),
            discriminator=DiscriminatorConfig(channel_base=512, channel_max=64, embed_dim=64),
            fit=FitConfig(iterations=2_000, batch_size=24, checkpoint_every=500, evaluate_every=500, sample_every=500),
        )
