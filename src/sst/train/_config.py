"""Training options: frozen dataclasses that check themselves, the only home of training defaults."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sst._validate import check_choice, check_range

C = TypeVar("C")

PRESETS = ("paper", "fast", "demo")
WIDEST, DEEPEST = 2**16, 100  # features a layer and layers that a configuration may ask for: it may come from a file


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as nested dictionaries of JSON values (tuples become lists)."""
    found: dict[str, Any] = {}
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, tuple):
            value = list(value)
        found[entry.name] = value
    return found


def from_dict(cls: type[C], values: dict[str, Any]) -> C:
    """The inverse of :func:`to_dict`: unknown names are an error, missing ones take their defaults.

    Raises
    ------
    TypeError
        ``values`` holds a name that ``cls`` does not know.
    """
    hints = typing.get_type_hints(cls)
    known = {entry.name for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        msg = f"{cls.__name__} has no {unknown}. Possible: {sorted(known)}."
        raise TypeError(msg)
    made = {}
    for name, value in values.items():
        hint = hints[name]
        if isinstance(hint, types.UnionType):
            hint = next((h for h in typing.get_args(hint) if h is not type(None)), hint)
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            value = from_dict(typing.cast("type", hint), value)
        elif isinstance(value, list):
            value = tuple(value)
        made[name] = value
    return cls(**made)


class Nested:
    """``replace`` that reaches into sections, for configurations made of configurations."""

    def replace(self, **changes: Any) -> Any:
        """A copy with changes; ``section__name=value`` reaches into a section (``fit__iterations=100``).

        Raises
        ------
        TypeError
            A section or a name is not known.
        """
        mine: Any = self
        made: dict[str, Any] = {}
        for name, value in changes.items():
            section, _, entry = name.partition("__")
            known = {f.name for f in dataclasses.fields(mine)}
            if section not in known:
                msg = f"{type(self).__name__} has no {section!r}. Possible: {sorted(known)}."
                raise TypeError(msg)
            if not entry:
                made[section] = value
                continue
            old = made.get(section, getattr(mine, section))
            inner = {f.name for f in dataclasses.fields(old)} if dataclasses.is_dataclass(old) else set()
            if entry not in inner:
                msg = f"{type(self).__name__}.{section} has no {entry!r}. Possible: {sorted(inner)}."
                raise TypeError(msg)
            made[section] = dataclasses.replace(old, **{entry: value})
        return dataclasses.replace(mine, **made)


@dataclass(frozen=True)
class FitConfig:
    """How long, how fast and how closely watched: what every training shares.

    Attributes
    ----------
    iterations
        Iterations in all (earlier runs of the same folder counted in).
    max_seconds
        Stop after this many seconds of training (earlier runs counted in), whatever ``iterations`` says.
    clock
        What these seconds are: ``"wall"``, or ``"cpu"``: of this process' processors, all threads together, so that trainings on a busy
        machine compare.
    batch_size
        Cells an iteration, over all processes.
    precision
        ``"auto"`` (bf16 on a GPU that has it, and on a CPU where a short measurement finds it faster; else fp32), ``"fp32"``, ``"tf32"`` (fp32 with TF32 products on a GPU), ``"bf16"`` (autocast) or ``"fp16"`` (autocast, scaled loss).
    devices
        How many processes (GPUs) share a batch; ``0``: as many as the launcher (``torchrun``) started, else one. Without a launcher,
        :func:`sst.tl.train_gan` starts them itself.
    compile
        ``"off"``; ``"on"``: ``torch.compile`` for the networks of the main phases (regularisers, differentiated twice, stay as they
        are); ``"graphs"``: every phase recorded once as a CUDA graph, then replayed (one process); ``"both"``; ``"auto"``: off on
        a CPU and if ``deterministic``; on a GPU graphs in a single process, and ``torch.compile`` if the run is long enough to repay it.
        What fails is said once, and training goes on without it.
    ema_images
        Half-life, in images, of the running average of the weights.
    ema_rampup
        The half-life is at most this share of the images seen so far, so that short runs average too.
    log_every, checkpoint_every, evaluate_every, sample_every
        Iterations between rows of the metrics table, checkpoints, evaluations on held-out cells and sample grids (0: never).
    keep_every
        Keep the checkpoint of every so many iterations besides the last and the best (0: only those two).
    deterministic
        Ask PyTorch for deterministic algorithms (slower on a GPU; on a CPU runs repeat bit for bit without it).
    tensorboard
        Write TensorBoard events too (needs the ``tensorboard`` extra).
    """

    iterations: int = 100_000
    max_seconds: float | None = None
    clock: Literal["wall", "cpu"] = "wall"
    batch_size: int = 16
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "fp32"
    devices: int = 0
    compile: Literal["auto", "off", "on", "graphs", "both"] = "auto"
    ema_images: int = 10_000
    ema_rampup: float | None = 0.05
    log_every: int = 50
    checkpoint_every: int = 2_000
    evaluate_every: int = 2_000
    sample_every: int = 2_000
    keep_every: int = 0
    deterministic: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "log_every"):
            check_range(name, getattr(self, name), low=1)
        for name in ("devices", "ema_images", "checkpoint_every", "evaluate_every", "sample_every", "keep_every"):
            check_range(name, getattr(self, name), low=0)
        if self.max_seconds is not None:
            check_range("max_seconds", self.max_seconds, low=0, open_low=True)
        if self.ema_rampup is not None:
            check_range("ema_rampup", self.ema_rampup, low=0, open_low=True)
        check_choice("clock", self.clock, ("wall", "cpu"))
        check_choice("precision", self.precision, ("auto", "fp32", "tf32", "bf16", "fp16"))
        check_choice("compile", self.compile, ("auto", "off", "on", "graphs", "both"))


@dataclass(frozen=True)
class DataConfig:
    """How cells reach the device.

    Attributes
    ----------
    rotate, flip
        Random quarter turns and mirror images of the real crops.
    jitter
        Probability that a batch's counts get ``u * t`` added, ``u ~ U(0, 1)``, ``t`` uniform in {-1, 0, 1}, entry by entry
        (Wu & Koelzer 2024). Sums below zero become zero unless ``jitter_negative``.
    jitter_negative
        Keep negative counts after jitter, as the paper does.
    placement
        ``"auto"``: crops on the device if they fill less than ``memory`` of what is free there, else in memory, else
        streamed from their store; or one of ``"device"``, ``"memory"``, ``"stream"``.
    memory
        Share of the free memory that the crops may take.
    block, buffer_blocks
        When streaming: cells a block (read in sequence), and blocks shuffled together.
    """

    rotate: bool = True
    flip: bool = True
    jitter: float = 0.0
    jitter_negative: bool = False
    placement: Literal["auto", "device", "memory", "stream"] = "auto"
    memory: float = 0.5
    block: int = 4096
    buffer_blocks: int = 8

    def __post_init__(self) -> None:
        check_range("jitter", self.jitter, low=0, high=1)
        check_range("memory", self.memory, low=0, high=1)
        check_range("block", self.block, low=1)
        check_range("buffer_blocks", self.buffer_blocks, low=1)
        check_choice("placement", self.placement, ("auto", "device", "memory", "stream"))


@dataclass(frozen=True)
class GeneratorConfig:
    """Sizes and gene inputs of :class:`sst.nn.Generator` (names as there)."""

    z_dim: int = 512
    w_dim: int = 512
    channel_base: int = 32768
    channel_max: int = 512
    mapping_layers: int = 8
    gene_layers: int = 8
    gene_width: int = 256
    gene_inputs: tuple[str, ...] = ("kernel", "style")
    kernel_offset: float = 1.0
    input_transform: Literal["log1p", "counts"] = "log1p"
    lr_multiplier: float = 0.01
    style_lr_multiplier: float = 15.0
    border: Literal["zero", "replicate"] = "zero"

    def __post_init__(self) -> None:
        check_choice("border", self.border, ("zero", "replicate"))
        for name in ("z_dim", "w_dim", "channel_base", "channel_max", "gene_width"):
            check_range(name, getattr(self, name), low=1, high=WIDEST)
        for name in ("mapping_layers", "gene_layers"):
            check_range(name, getattr(self, name), low=1, high=DEEPEST)
        check_range("lr_multiplier", self.lr_multiplier, low=0, open_low=True)
        check_range("style_lr_multiplier", self.style_lr_multiplier, low=0, open_low=True)
        check_choice("input_transform", self.input_transform, ("log1p", "counts"))
        if not self.gene_inputs:
            msg = "gene_inputs is empty. Possible: 'kernel', 'style' or both."
            raise ValueError(msg)
        for name in self.gene_inputs:
            check_choice("gene_inputs", name, ("kernel", "style"))


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes and conditioning of :class:`sst.nn.Discriminator` (names as there)."""

    channel_base: int = 32768
    channel_max: int = 512
    conditioning: Literal["expression", "label"] = "expression"
    embed_dim: int = 256
    expression_lr_multiplier: float = 15.0

    def __post_init__(self) -> None:
        check_range("expression_lr_multiplier", self.expression_lr_multiplier, low=0, open_low=True)
        for name in ("channel_base", "channel_max", "embed_dim"):
            check_range(name, getattr(self, name), low=1, high=WIDEST)
        check_choice("conditioning", self.conditioning, ("expression", "label"))


@dataclass(frozen=True)
class LossConfig:
    """Weights and intervals of the objective.

    Attributes
    ----------
    r1_weight, r1_interval
        ``r1_weight / 2 * |grad D|^2`` on real images, every so many iterations (0: never), scaled by the interval.
    path_weight, path_interval, path_decay
        Path-length regulariser of the generator on averaged pairs of cells (weight 0 or interval 0: never).
    mismatch
        Share of the fakes' loss that real images with *another cell's expression* make up (needs conditioning by expression).
    alignment, temperature
        Weight and temperature of InfoNCE between image and expression embeddings, in both networks' losses.
    taper
        Over this last share of the run, ``mismatch`` and the generator's ``alignment`` fall to 0 (0: never). Both teach the genes
        fast, and both reward the image that tells most of its genes instead of the likeliest one: kept up to the end, effects come out 10 to 15 % too large.
        A run that is made longer afterwards starts again with full weights.
    ada_target
        Adaptive augmentation for few cells (Karras et al., 2020): the mean sign of the discriminator's scores of real images
        that is aimed at, 0.6 for instance; 0: none.
    """

    r1_weight: float = 10.0
    r1_interval: int = 16
    path_weight: float = 2.0
    path_interval: int = 4
    path_decay: float = 0.01
    mismatch: float = 0.5
    alignment: float = 0.3
    temperature: float = 0.1
    taper: float = 0.0
    ada_target: float = 0.0

    def __post_init__(self) -> None:
        for name in ("r1_weight", "r1_interval", "path_weight", "path_interval", "alignment"):
            check_range(name, getattr(self, name), low=0)
        check_range("path_decay", self.path_decay, low=0, high=1, open_low=True)
        check_range("ada_target", self.ada_target, low=0, high=1)
        check_range("mismatch", self.mismatch, low=0, high=1)
        check_range("temperature", self.temperature, low=0, open_low=True)
        check_range("taper", self.taper, low=0, high=1)


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, with the lazy-regularisation correction: lr and betas to the power of ``interval / (interval + 1)``."""

    lr_generator: float = 0.002
    lr_discriminator: float = 0.002
    betas: tuple[float, float] = (0.0, 0.99)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_range("lr_generator", self.lr_generator, low=0, open_low=True)
        check_range("lr_discriminator", self.lr_discriminator, low=0, open_low=True)
        for beta in self.betas:
            check_range("betas", beta, low=0, high=1)


@dataclass(frozen=True)
class GANConfig(Nested):
    """Everything that :func:`sst.tl.train_gan` may be told about the model and its training."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=FitConfig)

    def __post_init__(self) -> None:
        if self.discriminator.conditioning == "label" and (self.loss.mismatch or self.loss.alignment):
            msg = (
                f"loss.mismatch={self.loss.mismatch} and loss.alignment={self.loss.alignment} need a discriminator that "
                "sees the expression: set them to 0, or discriminator.conditioning='expression'."
            )
            raise ValueError(msg)

    @classmethod
    def preset(cls, name: Literal["paper", "fast", "demo"] = "fast") -> GANConfig:
        """A named configuration.

        ``"paper"``: the published settings (raw counts, genes to the kernels only, the discriminator sees the label).
        ``"fast"``: the paper's sizes with stable inputs and a discriminator that holds the genes to account; the default.
        ``"demo"``: narrow, for small images on a CPU.
        """
        check_choice("preset", name, PRESETS)
        if name == "paper":
            return cls(
                generator=GeneratorConfig(gene_inputs=("kernel",), kernel_offset=0.0, input_transform="counts"),
                discriminator=DiscriminatorConfig(conditioning="label"),
                loss=LossConfig(mismatch=0.0, alignment=0.0),
                data=DataConfig(jitter=0.5, jitter_negative=True),
                fit=FitConfig(iterations=800_000, ema_images=5_000, ema_rampup=None),  # 0.5^(32 / 10,000) a step of 16
            )
        if name == "fast":
            return cls(loss=LossConfig(ada_target=0.6, taper=0.25), fit=FitConfig(iterations=800_000, precision="auto"))
        return cls(
            generator=GeneratorConfig(
                z_dim=64, w_dim=64, channel_base=512, channel_max=64, mapping_layers=2, gene_layers=3, gene_width=64
            ),
            discriminator=DiscriminatorConfig(channel_base=512, channel_max=64, embed_dim=64),
            loss=LossConfig(r1_weight=2.0, path_weight=0.0, taper=0.25),
            fit=FitConfig(iterations=4_000, checkpoint_every=500, evaluate_every=500, sample_every=500),
        )
