"""What a training tells while it runs: progress bar, metrics table, sample grids, warnings."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any

from sst._files import naming_full_disk, new_file
from sst._settings import logger, settings

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd


class TrainingDivergedError(RuntimeError):
    """A loss is no longer a number."""


def read_history(folder: Path) -> pd.DataFrame:
    """The metrics of a run: one row a log or evaluation, indexed by iteration; empty if there are none."""
    import pandas as pd

    path = folder / "metrics.csv"
    if not path.exists():
        return pd.DataFrame({"iteration": []}).set_index("iteration")
    long = pd.read_csv(path).drop_duplicates(["iteration", "name"], keep="last")
    wide = long.pivot(index="iteration", columns="name", values="value")
    wide.columns.name = None
    return wide


class Watch:
    """Writes ``metrics.csv`` (iteration, name, value; one line a number) and ``samples/*.png``, and shows the progress bar."""

    def __init__(
        self, folder: Path | None, total: int, start: int, *, active: bool, tensorboard: bool, name: str
    ) -> None:
        from tqdm.auto import tqdm

        self.folder = folder if active else None
        self.bar = tqdm(
            total=total,
            initial=start,
            desc=name,
            unit="it",
            disable=not (active and settings.progress),
            mininterval=0.5,
        )
        self.active = active
        self.warned: set[str] = set()
        self.rows: list[tuple[int, str, float]] = []
        self.writer: Any = None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._truncate(start)
            if tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                self.writer = SummaryWriter(str(self.folder / "tensorboard"))

    def _truncate(self, start: int) -> None:
        """Forget rows from beyond the checkpoint that the run resumes from."""
        if self.folder is None:
            return
        path = self.folder / "metrics.csv"
        kept: list[tuple[str, str, str]] = []
        if path.exists() and start:
            with path.open(newline="") as file:
                kept = [
                    (row["iteration"], row["name"], row["value"])
                    for row in csv.DictReader(file)
                    if row.get("value") and int(row["iteration"]) <= start
                ]
        with new_file(path) as draft, draft.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("iteration", "name", "value"))
            writer.writerows(kept)

    def record(self, iteration: int, values: dict[str, float]) -> None:
        """Add a row to the table (and the bar)."""
        self.rows.extend((iteration, name, value) for name, value in values.items())
        if self.folder is not None:
            path = self.folder / "metrics.csv"
            with naming_full_disk(path), path.open("a", newline="") as file:
                csv.writer(file).writerows((iteration, name, repr(float(value))) for name, value in values.items())
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, iteration)
        shown = {k.removesuffix("/loss"): f"{v:.3g}" for k, v in values.items() if k.endswith("/loss") or "/" not in k}
        if shown:
            self.bar.set_postfix(shown, refresh=False)

    def step(self) -> None:
        """One more iteration is done."""
        self.bar.update(1)

    def samples(self, iteration: int, grid: np.ndarray) -> None:
        """Save a grid of images."""
        if self.folder is None:
            return
        import imageio.v3 as imageio

        path = self.folder / "samples"
        with new_file(path / f"it{iteration:08d}.png") as draft:
            imageio.imwrite(draft, grid)

    def warn(self, sentence: str) -> None:
        """Say it once."""
        if self.active and sentence not in self.warned:
            self.warned.add(sentence)
            logger.warning(sentence)

    def close(self) -> None:
        """End the bar and the event file."""
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


def check_finite(iteration: int, values: dict[str, float]) -> None:
    """Raise :class:`TrainingDivergedError` that names the values that are not numbers."""
    broken = {name: value for name, value in values.items() if not math.isfinite(value)}
    if broken:
        msg = (
            f"training diverged before iteration {iteration}: {broken}. The last checkpoint is from before; resume with a "
            "lower learning rate, precision='fp32', or a higher r1_weight."
        )
        raise TrainingDivergedError(msg)
