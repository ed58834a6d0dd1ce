"""What all models share: a folder of JSON and safetensors, a hash, a history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from sst._files import current
from sst._settings import logger, settings
from sst.nn import ExpressionTransform, read_beyond
from sst.train import free_memory, to_dict

from ._folder import CONFIG, ModelFolder, weights_hash
from ._inputs import LOWEST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from ._registry import Registry

Start = Literal["expression", "code", "crop"]
KINDS: dict[str, type[Model]] = {}


_OWN: set[Path] = set()  # folders of models that were saved or loaded in this session


def own(folder: str | Path) -> Path:
    """Note that the user, not a file, named a model's folder; its whole path."""
    place = Path(folder).resolve()
    _OWN.add(place)
    return place


def is_ours(folder: str | Path) -> bool:
    """Whether a folder was saved or loaded in this session, or lies inside :attr:`sst.settings.model_dir`."""
    place = Path(folder).resolve()
    return place in _OWN or place.is_relative_to(Path(settings.model_dir).resolve())


class Model(ABC):
    """A trained model; subclasses name their networks and how to build them.

    Parameters
    ----------
    registry
        What it was trained on.
    config
        The frozen dataclass it was trained with.
    history
        Metrics by iteration.
    """

    kind: ClassVar[str]
    #: What an image is drawn from: ``"expression"`` alone, a ``"code"`` of the cell's pixels (the image before an edit is a
    #: reconstruction), or its ``"crop"`` (the image before an edit is the crop itself). The latter two read crops.
    starts_from: ClassVar[Start] = "expression"
    #: What tables call the images it makes; empty if it makes none.
    images: ClassVar[str] = ""

    #: The most cells that are drawn together, on a CPU and on a GPU, unless a call says otherwise.
    _at_once: ClassVar[tuple[int, int]] = (64, 256)

    #: How far training shrank what the model makes of expression: as so much more noise in every gene's standardised log counts would.
    shrinkage: float = 0.0

    #: Whether training took counts for what they are, noisy readings of expression: then an edit is shown as it is asked for, ``latent`` or not.
    free_of_noise: bool = False

    def __init__(self, registry: Registry, config: Any, history: pd.DataFrame | None = None) -> None:
        self.registry = registry
        self.config = config
        self.history = pd.DataFrame() if history is None else history
        self.folder: Path | None = None  # where it was saved or loaded last
        self._hash: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if kind := cls.__dict__.get("kind"):
            KINDS[kind] = cls

    @property
    def adjusted_for(self) -> str:
        """Column of obs (slides) whose differences training left out; empty if none."""
        return self.registry.batch_key if len(self.registry.slides) > 1 else ""

    @property
    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """The networks whose weights are saved, by name."""

    @classmethod
    @abstractmethod
    def _build(cls, registry: Registry, config: dict[str, Any]) -> Self:
        """The model with untrained networks, from what its folder says."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(p.device for network in self.networks.values() for p in network.parameters())

    def to(self, device: str | torch.device | None) -> Self:
        """Move the networks (``None``: to :attr:`sst.settings.device`)."""
        target = settings.torch_device(None if device is None else str(device))
        for network in self.networks.values():
            network.to(target)
        return self

    def cells_at_once(self) -> int:
        """How many cells are drawn together where a call does not say: a power of two that memory has room for.

        On a GPU half of what is free is shared out, and a cell counts as 16 times its largest feature map. On a CPU speed is the same
        from 16 to 64 cells, so these maps may fill 64 MiB.
        """
        gpu = self.device.type == "cuda"
        room = free_memory(self.device) // (2 * 16) if gpu else 64 << 20
        fits = room // max(self._map_bytes(), 1)
        return min(self._at_once[gpu], max(8, 1 << max(fits.bit_length() - 1, 0)))

    def _map_bytes(self) -> int:
        """Bytes of the largest feature map of one cell."""
        return 0

    @contextmanager
    def read_beyond(self) -> Iterator[None]:
        """Within, expression is read as it is where it lies outside the range of training, down to -1 (no count, but a value of log1p)."""
        token = LOWEST.set(-1.0)
        try:
            with read_beyond(*self.networks.values()):
                yield
        finally:
            LOWEST.reset(token)

    def lowest(self) -> np.ndarray | None:
        """Counts of each gene (p) below which the networks read them as these; ``None`` if they read them as they are."""
        found = [
            m for network in self.networks.values() for m in network.modules() if isinstance(m, ExpressionTransform)
        ]
        bounds = [m.low.cpu().numpy() for m in found if m.kind == "log1p" and bool((m.low > 0).any())]
        return np.max(bounds, axis=0) if bounds else None

    def weights(self) -> dict[str, Tensor]:
        """All weights and buffers on the CPU, as ``network.name``."""
        return {n: v.detach().to("cpu", copy=True).contiguous() for n, v in _state(self.networks).items()}

    @property
    def hash(self) -> str:
        """First 16 digits of the SHA-256 of names, shapes, types and values of the weights."""
        if self._hash is None:
            self._hash = weights_hash(self.weights())
        return self._hash

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``config.json``, ``weights.safetensors``, ``registry.json`` and ``history.csv``, all at once.

        A process killed meanwhile leaves the model that was there before, or this one.

        Raises
        ------
        FileExistsError
            The folder holds another model and ``overwrite`` is false.
        BlockingIOError
            Another process is saving a model there.
        """
        target = ModelFolder(Path(folder), self.kind, self.hash, to_dict(self.config), self.registry.to_dict())
        if not overwrite and current(folder, CONFIG).exists():
            there = ModelFolder.open(folder).hash
            if there != self.hash:
                msg = f"{folder} holds another model ({there}); overwrite=True replaces it."
                raise FileExistsError(msg)
        target.write(self.weights(), self.history)
        self.folder = own(folder)
        logger.debug("saved %s model %s to %s", self.kind, self.hash, folder)
        return target.path

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device | None = None) -> Self:
        """Read a model's folder; no pickle is ever read.

        Raises
        ------
        FileNotFoundError
            The folder is not a model's.
        ValueError
            It is another kind's, or its weights are not those that its configuration names.
        """
        found = ModelFolder.open(folder)
        if found.kind != cls.kind:
            msg = f"{folder} holds a {found.kind!r} model, not {cls.kind!r}; sst.models.load reads any kind."
            raise ValueError(msg)
        registry = found.described()
        try:
            with torch.device("meta"):  # nothing of the sizes that a file names is made until they are known to be true
                found.check_shapes(_state(cls._build(registry, found.config).networks))
            model = cls._build(registry, found.config)
        except (TypeError, MemoryError) as error:
            msg = f"{found.path / CONFIG} does not describe a {cls.kind!r} model: {error}"
            raise ValueError(msg) from error
        try:
            weights = found.weights()
        except ValueError:
            if ModelFolder.open(folder) == found:
                raise
            return cls.load(folder, device)  # replaced while it was read
        for key, network in model.networks.items():
            part = {name.removeprefix(f"{key}."): v for name, v in weights.items() if name.startswith(f"{key}.")}
            network.load_state_dict(part)
            network.eval().requires_grad_(False)  # noqa: FBT003
        model.history = found.history()
        model.folder, model._hash = own(folder), found.hash
        return model.to(device)

    def __repr__(self) -> str:
        r = self.registry
        notes = "".join(f", {topic}: {note}" for topic, note in r.notes.items())
        sizes = f"{len(r.genes)} genes, {len(r.channels)} channels, {r.output_size} px"
        return f"{type(self).__name__}({sizes}, hash {self.hash}{notes})"


def progress_bar(total: int, description: str, *, progress: bool | None, most: int = 0) -> tqdm:
    """A bar over cells; hidden if ``progress`` (``None``: the setting) says so, or for at most ``most`` cells."""
    hidden = not (settings.progress if progress is None else progress) or total <= most
    return tqdm(total=total, desc=description, unit="cell", disable=hidden)


def _state(networks: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{key}.{name}": value for key, network in networks.items() for name, value in network.state_dict().items()}
