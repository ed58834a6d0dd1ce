"""Several trainings of a model as one: what they agree on, and how far they do not."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ._base import Model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from anndata import AnnData


class Ensemble:
    """Models of one kind, trained with different seeds, drawn as one.

    Pass several models to :func:`sst.tl.edit` (``model=[a, b, c]``), or make one.

    Parameters
    ----------
    models
        At least two of one kind, trained on the same genes, channels and sizes.

    Raises
    ------
    TypeError
        A model makes no images.
    ValueError
        Fewer than two, models that differ in more than their seed, or inversions.
    """

    folder: Path | None = None

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = list(models)
        if len(self.models) < 2:
            msg = f"an ensemble needs at least two models, got {len(self.models)}."
            raise ValueError(msg)
        first = self.models[0]
        for model in self.models:
            if not isinstance(model, Model) or not hasattr(model, "generate"):
                msg = f"{model!r} makes no images."
                raise TypeError(msg)
            for what in ("kind", "genes", "channels", "output_size", "crop_size", "batch_key"):
                mine, theirs = getattr(first.registry, what), getattr(model.registry, what)
                if mine != theirs:
                    msg = f"the models of an ensemble differ in {what}: {mine} and {theirs}."
                    raise ValueError(msg)
        if first.starts_from == "code":
            msg = "inversions form no ensemble: each has a code of its own. Possible: GANs, editors, rivals."
            raise ValueError(msg)
        self.registry = first.registry
        self.starts_from = first.starts_from
        self.adjusted_for = first.adjusted_for
        self.free_of_noise = first.free_of_noise
        self.shrinkage = float(np.mean([m.shrinkage for m in self.models]))

    @property
    def hash(self) -> str:
        """Of the models' hashes, whatever their order."""
        return hashlib.sha256("".join(sorted(m.hash for m in self.models)).encode()).hexdigest()[:16]

    @contextmanager
    def read_beyond(self) -> Iterator[None]:
        """As of a model: :meth:`Model.read_beyond`."""
        with ExitStack() as stack:
            for model in self.models:
                stack.enter_context(model.read_beyond())
            yield

    def to(self, device: Any) -> Self:
        """As of a model: :meth:`Model.to`."""
        for model in self.models:
            model.to(device)
        return self

    def cells_at_once(self) -> int:
        """As of a model: :meth:`Model.cells_at_once`."""
        return self.models[0].cells_at_once()

    def lowest(self) -> np.ndarray | None:
        """As of a model: :meth:`Model.lowest`, the highest of all."""
        bounds = [low for model in self.models if (low := model.lowest()) is not None]
        return np.max(bounds, axis=0) if bounds else None

    def generate_each(self, data: AnnData | Any, **options: Any) -> np.ndarray:
        """Images of every model: models x n x c x h x w uint8 (``options``: of the models' ``generate``)."""
        return np.stack([model.generate(data, **options) for model in self.models])  # type: ignore[attr-defined]

    def generate(self, data: AnnData | Any, **options: Any) -> np.ndarray:
        """Mean image over the models, uint8, n x c x h x w (``options``: of the models' ``generate``)."""
        return mean_image(self.generate_each(data, **options))

    def __repr__(self) -> str:
        return f"Ensemble of {len(self.models)}: {self.models[0]!r}"


def mean_image(images: np.ndarray) -> np.ndarray:
    """Mean over the first axis, rounded, uint8."""
    return np.rint(images.mean(axis=0, dtype=np.float64)).astype(np.uint8)


def spread_of(images: np.ndarray) -> np.ndarray:
    """How far images of several models (m x n x c x h x w) lie apart: root mean square over pixels of their SD, n x c float32."""
    return np.sqrt(images.astype(np.float32).var(axis=0, ddof=1).mean(axis=(2, 3)))
