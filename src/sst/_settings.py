"""Package-wide settings and the logger."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("sst")


def _default_data_dir() -> Path:
    return Path(os.environ.get("SST_DATA_DIR", Path.home() / ".cache" / "sst-editing"))


def _somebody_looks() -> bool:
    """Whether a bar that is drawn again and again is of use: not in a log file."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


@dataclass
class Settings:
    """What holds for every call that does not say otherwise.

    Attributes
    ----------
    device
        ``"auto"`` (CUDA if there is one, else MPS if there is one, else CPU) or any torch device string.
    data_dir
        Where public data and weights asked for by the user are kept (``SST_DATA_DIR``).
    model_dir
        Where models trained without ``out=`` are saved, each in a folder of its own (``SST_MODEL_DIR``).
    progress
        Show progress bars; by default where standard error is a terminal, and in notebooks.
    seed
        Seed used where a function's ``seed`` is ``None``.
    """

    device: str = "auto"
    data_dir: Path = field(default_factory=_default_data_dir)
    model_dir: Path = field(default_factory=lambda: Path(os.environ.get("SST_MODEL_DIR", "sst_models")))
    progress: bool = field(default_factory=_somebody_looks)
    seed: int = 0

    def torch_device(self, device: str | None = None) -> torch.device:
        """Resolve ``device`` (``None``: the setting) to a torch device."""
        import torch

        name = device or self.device
        if name != "auto":
            return torch.device(name)
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")


settings = Settings()
