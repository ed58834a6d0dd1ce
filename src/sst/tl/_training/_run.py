"""One training: settings, folder, this process or several, and a model that is kept. The same for every kind of model."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from sst._files import locked
from sst._settings import settings
from sst.models import Model, remember
from sst.train import Checkpoints, fit, is_launched

from ._folder import TRAINING, claim, model_folder
from ._processes import check_processes, train_in_processes

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch
    from anndata import AnnData

    from sst.models import Registry
    from sst.train import Cells, FitResult, Task

M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Run(Generic[M]):
    """How one model is trained, and where.

    Attributes
    ----------
    model
        The kind of model; ``sst.tl.train_<kind>`` trains it, here and in every process that is launched.
    config
        All settings, overrides included.
    folder
        Of the model; its checkpoints lie in ``training`` inside.
    device, seed, resume
        Where it computes, its random numbers, and whether it goes on from a checkpoint in the folder.
    """

    model: type[M]
    config: Any
    folder: Path
    device: torch.device
    seed: int
    resume: bool

    @classmethod
    def plan(
        cls,
        model: type[M],
        config: Any,
        *,
        out: str | Path | None,
        device: str | None,
        seed: int | None,
        resume: bool,
        **overrides: Any,
    ) -> Self:
        """Take the settings' defaults where nothing was said.

        ``overrides`` are settings of the loop (``config.fit``); ``None`` leaves the configuration's.

        Raises
        ------
        ValueError
            The processes cannot share the batch or the devices, or each of them would name a folder of its own.
        """
        config = config.replace(**{f"fit__{key}": value for key, value in overrides.items() if value is not None})
        where = settings.torch_device(device)
        check_processes(config, where)
        folder = model_folder(out, model.kind)
        return cls(model, config, folder, where, settings.seed if seed is None else seed, resume)

    @property
    def checkpoints(self) -> Checkpoints:
        """What the training left in the folder."""
        return Checkpoints(self.folder / TRAINING)

    def fit(self, task: Task, cells: Cells) -> FitResult:
        """Run the loop in this process."""
        place = self.folder / TRAINING
        options: dict[str, Any] = {
            "resume": self.resume,
            "seed": self.seed,
            "device": self.device,
            "name": self.model.kind,
        }
        return fit(task, cells, self.config.fit, folder=place, **options)

    def finish(
        self,
        adata: AnnData,
        registry: Registry,
        train: Callable[[Self], M],
        *,
        name: str,
        layer: str | None,
        arguments: dict[str, Any],
        models: dict[str, Model] | None = None,
    ) -> M:
        """Claim the folder, train here or in as many processes as the settings say, keep the model and note it in the object.

        Parameters
        ----------
        adata
            The paired cells, checked already.
        registry
            What the model is trained on.
        train
            Trains in this process.
        name
            What the model is called in ``uns["sst"]["models"]``; one that makes images becomes the last one.
        layer
            Counts.
        arguments
            JSON values for the other keywords of the training, for the processes that are launched.
        models
            Models for its keywords.

        Raises
        ------
        BlockingIOError
            Another process trains in this folder.
        """
        with self._alone():
            model = self._finish(adata, registry, train, layer=layer, arguments=arguments, models=models)
        remember(adata, name, self.folder, image_model=hasattr(model, "generate"))
        return model

    def _alone(self) -> AbstractContextManager[None]:
        """Keep other trainings out of the folder; of several processes one does so for all."""
        if is_launched() or int(os.environ.get("RANK", "0")) > 0:
            return nullcontext()
        return locked(self.folder / TRAINING, "trained")

    def _finish(
        self,
        adata: AnnData,
        registry: Registry,
        train: Callable[[Self], M],
        *,
        layer: str | None,
        arguments: dict[str, Any],
        models: dict[str, Model] | None,
    ) -> M:
        claim(self.folder, self.config, registry, self.seed)
        rest = arguments | {"resume": self.resume, "seed": self.seed}
        places: dict[str, Any] = {"layer": layer, "folder": self.folder, "device": self.device}
        function = f"train_{self.model.kind}"
        if train_in_processes(function, adata, self.config, rest, models=models, **places):
            return self.model.load(self.folder, device=str(self.device))
        model = train(self)
        if int(os.environ.get("RANK", "0")) == 0:
            model.save(self.folder, overwrite=True)
        return model
