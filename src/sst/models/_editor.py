"""The trained editor: this cell under another expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch

from sst._settings import settings
from sst._validate import check_range
from sst.nn import AROUND, TRAITS, CellEditor
from sst.train import EditorConfig, from_dict, to_dict, to_uint8, to_unit, turn

from ._base import Model, progress_bar
from ._image_input import ImageInput
from ._inputs import ExpressionInput, cell_seeds
from ._sources import choose_sources

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData
    from torch import Tensor, nn

    from ._registry import Registry


def build_editor(registry: Registry, config: EditorConfig) -> CellEditor:
    """An untrained editor of the registry's sizes."""
    return CellEditor(
        registry.n_inputs,
        img_channels=len(registry.channels),
        resolution=registry.output_size,
        around="niche" in registry.inputs,
        **to_dict(config.editor),
    )


class Editor(Model):
    """Turns real cells: the crop itself, as it would look under another expression.

    Train one with :func:`sst.tl.train_editor`, or load it with :meth:`load`. A cell whose expression stays as it is keeps its image,
    bit for bit: the image *before* an edit is the real crop.

    Parameters
    ----------
    registry
        Genes, channels and sizes.
    config
        What it was trained with.
    editor
        The network.
    history
        Metrics by iteration.
    """

    kind: ClassVar[str] = "editor"
    starts_from = "crop"
    images = "this cell"
    free_of_noise = True
    config: EditorConfig

    def __init__(
        self, registry: Registry, config: EditorConfig, editor: CellEditor, history: pd.DataFrame | None = None
    ) -> None:
        super().__init__(registry, config, history)
        self.editor = editor.eval().requires_grad_(False)  # noqa: FBT003

    @property
    def effects(self) -> pd.DataFrame:
        """What each gene does to each trait of each channel.

        Rows are genes (of an editor that reads halves of windows ``"own HLA-A"``, ``"niche HLA-A"``), columns such as ``"DAPI wide"``; in standard deviations of the trait per standard deviation of log(1 + counts), 0 for genes that the
        cells do not show to act.
        """
        names = (*TRAITS, AROUND) if self.editor.around else TRAITS
        columns = [f"{channel} {trait}" for trait in names for channel in self.registry.channels]
        return pd.DataFrame(self.editor.response.cpu().numpy(), index=self.registry.input_names, columns=columns)

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The editor."""
        return {"editor": self.editor}

    def _map_bytes(self) -> int:
        return self.config.editor.width * self.registry.output_size**2  # float32 at half the side

    @classmethod
    def _build(cls, registry: Registry, config: dict[str, Any]) -> Self:
        made = from_dict(EditorConfig, config)
        return cls(registry, made, build_editor(registry, made))

    def generate(
        self,
        data: AnnData | Any,
        *,
        layer: str | None = None,
        n_samples: int = 1,
        seed: int | None = 0,
        images: Any = None,
        source_layer: str | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Edit real cells to the expression in ``layer``.

        Parameters
        ----------
        data
            AnnData with ``obsm["crops"]`` (genes in any order), or counts n x p in the order of ``registry.genes`` together
            with ``images``.
        layer
            Layer with the expression the cells are to have (``None``: ``X``; with ``source_layer=None`` that is no edit).
        n_samples
            1: nothing about an edit is random.
        seed
            Not used. Here so that all image models are called alike.
        images
            Real crops n x c x h x w uint8 (``None``: those of the object).
        source_layer
            Expression that belongs to the real crops (``None``: ``X``; for arrays: ``data``, which is no edit).
        batch_size
            Cells at a time.
        device
            Where to compute (``None``: where the model is).
        progress
            Show a progress bar (``None``: the setting).

        Returns
        -------
        uint8 images n x c x h x w.

        Raises
        ------
        TypeError
            An array without ``images``, or images that are not uint8.
        ValueError
            Genes, channels or sizes differ from the model's; expression is negative or missing; ``n_samples`` is not 1.
        """
        del seed
        check_range("n_samples", n_samples, low=1, high=1)
        target = ExpressionInput(data, self.registry, layer)
        own = target if layer == source_layer else ExpressionInput(data, self.registry, source_layer)
        crops = self._crops(data, images, own.n)
        out = np.empty(crops.images.shape, dtype=np.uint8)
        for a, b, real, x in self._blocks(crops, own, batch_size, device, progress):
            out[a:b] = self._edit(real, x, torch.from_numpy(target.rows(a, b)).to(self.device))
        return out

    @torch.no_grad()
    def draw(
        self,
        data: AnnData | Any,
        sources: AnnData,
        *,
        layer: str | None = None,
        n_samples: int = 1,
        seed: int | None = 0,
        neighbors: int | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw cells of the expression in ``layer``: other, real cells, turned to it.

        Where training turned and mirrored crops, a random one of these symmetries is applied to the real cell first.

        Parameters
        ----------
        data
            AnnData (genes in any order), or counts n x p in the order of ``registry.genes``. Its crops are not looked at.
        sources
            Real cells with ``obsm["crops"]`` and their counts in ``X``, for instance those of the training.
        layer
            Layer with the expression the cells are to have (``None``: ``X``).
        n_samples
            Images of each cell, from different real cells.
        seed
            Of the choice of real cells (``None``: :attr:`sst.settings.seed`).
        neighbors
            Take a random one of so many real cells whose expression is nearest (``None``: of all).
        batch_size, device, progress
            As for :meth:`generate`.

        Returns
        -------
        uint8 images n x n_samples x c x h x w, and the rows of ``sources`` that they were drawn from, n x n_samples. A cell is never drawn from
        itself, told by its name.

        Raises
        ------
        ValueError
            Genes, channels or sizes differ from the model's; expression is negative or missing; there are fewer than two sources, or than ``neighbors``.
        """
        check_range("n_samples", n_samples, low=1)
        seed = settings.seed if seed is None else seed
        target, own = ExpressionInput(data, self.registry, layer), ExpressionInput(sources, self.registry)
        crops = ImageInput(sources, self.registry)
        if device is not None:
            self.to(device)
        chosen = choose_sources(
            target,
            own,
            lambda x: self.editor.transform(x.to(self.device)).cpu(),
            neighbors=neighbors,
            seed=seed,
            n_samples=n_samples,
        )
        symmetries = {"rotate": self.config.data.rotate, "flip": self.config.data.flip}
        out = np.empty((target.n, n_samples, *crops.images.shape[1:]), dtype=np.uint8)
        with progress_bar(target.n, "draw", progress=progress) as bar:
            for a, rows in target.blocks(batch_size or self.cells_at_once()):
                b, x = a + len(rows), torch.from_numpy(rows).to(self.device)
                for sample in range(n_samples):
                    real, before = (
                        torch.from_numpy(np.concatenate([part.rows(k, k + 1) for k in chosen[a:b, sample]]))
                        for part in (crops, own)
                    )
                    coins = cell_seeds(target.names[a:b], seed, sample, "turn")[:, None] >> torch.arange(3) & 1
                    real = turn(real, coins.float(), **symmetries)
                    out[a:b, sample] = self._edit(real.to(self.device), before.to(self.device), x)
                bar.update(len(rows))
        return out, chosen

    def reconstruct(self, data: AnnData | Any, *, images: Any = None, **options: Any) -> np.ndarray:
        """The cells under their own expression: their crops, n x c x h x w uint8 (``options`` as for :meth:`generate`; none matters)."""
        del options
        crops = ImageInput(data if images is None else images, self.registry)
        return crops.rows(0, crops.n)

    def _crops(self, data: AnnData | Any, images: Any, n: int) -> ImageInput:
        if images is None and not hasattr(data, "obsm"):
            msg = f"an editor turns real cells: give images= beside a {type(data).__name__}, or an AnnData with crops."
            raise TypeError(msg)
        crops = ImageInput(data if images is None else images, self.registry)
        if crops.n != n:
            msg = f"{crops.n} images for {n} cells."
            raise ValueError(msg)
        return crops

    def _blocks(
        self,
        crops: ImageInput,
        own: ExpressionInput,
        batch_size: int | None,
        device: str | torch.device | None,
        progress: bool | None,  # noqa: FBT001
    ) -> Iterator[tuple[int, int, Tensor, Tensor]]:
        """First and last row of each block, its crops (uint8) and its own expression."""
        if device is not None:
            self.to(device)
        size = batch_size or self.cells_at_once()
        with progress_bar(crops.n, "edit", progress=progress) as bar:
            for a, rows in own.blocks(size):
                b = a + len(rows)
                yield a, b, torch.from_numpy(crops.rows(a, b)).to(self.device), torch.from_numpy(rows).to(self.device)
                bar.update(len(rows))

    @torch.no_grad()
    def _edit(self, real: Tensor, own: Tensor, target: Tensor) -> np.ndarray:
        return to_uint8(self.editor(to_unit(real), own, target)).cpu().numpy()
