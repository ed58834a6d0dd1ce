"""Inversion: real cells in, the same cells out, with their own genes or with edited ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch

from sst import _keys
from sst._settings import settings
from sst._validate import check_range
from sst.nn import PixelEncoder, decode
from sst.train import GANConfig, GeneratorConfig, InversionConfig, TowersConfig, from_dict, to_uint8

from ._base import Model, progress_bar
from ._clip import build_towers, embed_images
from ._codes import Codes, find_codes
from ._gan import build_generator, map_bytes
from ._image_input import ImageInput
from ._inputs import ExpressionInput, cell_seeds
from ._weights import make_distances

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from anndata import AnnData
    from torch import Tensor, nn

    from sst.nn import ClipTowers, Generator

    from ._registry import Registry


@dataclass(frozen=True)
class InversionRecord:
    """What an inversion is made of.

    Attributes
    ----------
    training
        How the encoder was trained; ``training.loss.perceptual`` and ``.identity`` name the networks that were really used.
    generator, towers
        Sizes of the frozen networks.
    gan, clip
        Hashes of the models they came from.
    """

    training: InversionConfig = field(default_factory=InversionConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    towers: TowersConfig = field(default_factory=TowersConfig)
    gan: str = ""
    clip: str = ""


def build_encoder(registry: Registry, config: InversionConfig, generator: Generator) -> PixelEncoder:
    """An untrained pixel encoder that fits a generator."""
    sizes = [side for side, _ in generator.noise_shapes if side <= config.encoder.maps * registry.output_size]
    one = config.encoder.map_channels == "one"
    return PixelEncoder(
        len(registry.channels),
        registry.output_size,
        num_styles=generator.num_styles,
        w_dim=generator.w_dim,
        widths=config.encoder.widths,
        depths=config.encoder.depths,
        head_width=config.encoder.head_width,
        residual=config.encoder.residual,
        map_sizes=sizes,
        map_channels=[1 if one else width for width in generator.widths[: len(sizes)]],
        map_width=config.encoder.map_width,
        norm=config.encoder.norm,
    )


class Inversion(Model):
    """A frozen generator with two encoders: edits *this* cell, not a random one.

    Train one with :func:`sst.tl.train_inversion`, or load it with :meth:`load`. The image of a cell is decoded from
    ``w_l = mapping(E_c(x)) + 2^(-6 fade) E_p(x)_l`` (what the cell looks like) under kernels driven by its expression.

    Parameters
    ----------
    registry
        Genes, channels and sizes: the GAN's.
    config
        What it is made of.
    encoder, generator, towers
        E_p, the generator, and the CLIP whose image tower is E_c.
    history
        Metrics by iteration.
    """

    kind: ClassVar[str] = "inversion"
    starts_from = "code"
    images = "reconstructed"
    _at_once = (32, 256)
    config: InversionRecord

    def __init__(
        self,
        registry: Registry,
        config: InversionRecord,
        encoder: PixelEncoder,
        generator: Generator,
        towers: ClipTowers,
        history: pd.DataFrame | None = None,
    ) -> None:
        super().__init__(registry, config, history)
        self.encoder, self.generator, self.towers = encoder, generator, towers
        for network in (encoder, generator, towers):
            network.eval().requires_grad_(False)  # noqa: FBT003
        self._distances: tuple[Any, Any] | None = None

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Pixel encoder, generator, towers."""
        return {"encoder": self.encoder, "generator": self.generator, "towers": self.towers}

    def _map_bytes(self) -> int:
        return map_bytes(self.generator)

    @classmethod
    def _build(cls, registry: Registry, config: dict[str, Any]) -> Self:
        made = from_dict(InversionRecord, config)
        generator = build_generator(registry, GANConfig(generator=made.generator))
        encoder = build_encoder(registry, made.training, generator)
        return cls(registry, made, encoder, generator, build_towers(registry, made.towers))

    @property
    def metrics(self) -> dict[str, float]:
        """PSNR and SSIM of held-out reconstructions, over all and per channel: the best row of :attr:`history`."""
        if "psnr" not in self.history or self.history["psnr"].isna().all():
            return {}
        row = self.history.loc[self.history["psnr"].idxmax()]
        names = [c for c in self.history.columns if c.split(" ")[0] in {"psnr", "ssim"}]
        return {name: float(row[name]) for name in names}

    def generate(
        self,
        data: AnnData | Any,
        *,
        layer: str | None = None,
        n_samples: int = 1,
        seed: int | None = 0,
        fade: float = 0.0,
        refine: int = 0,
        refine_steps: int = 0,
        images: Any = None,
        source_layer: str | None = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Draw real cells under the expression in ``layer``.

        Parameters
        ----------
        data
            AnnData with ``obsm["crops"]`` (genes in any order), or counts n x p in the order of ``registry.genes`` together
            with ``images``.
        layer
            Layer with the expression that drives the generator (``None``: ``X``).
        n_samples
            Images of each cell; several differ by the generator's noise, a single one has none.
        seed
            Of that noise (``None``: :attr:`sst.settings.seed`).
        fade
            Strength t in [0, 1]: the code that copies the cell's pixels fades by ``2^(-6 t)``.
        refine
            Further passes of the encoder over what the reconstruction still lacks.
        refine_steps
            Steps of optimisation of each cell's code by the training's own loss; no cell gets worse by it.
        images
            Real crops n x c x h x w uint8 (``None``: those of the object).
        source_layer
            Expression that belongs to the real crops (``None``: ``X``; for arrays: ``data``). Refinement reads this one, so that
            edited genes never reach the codes.
        batch_size
            Cells at a time.
        device
            Where to compute (``None``: where the model is).
        progress
            Show a progress bar (``None``: the setting).

        Returns
        -------
        uint8 images n x c x h x w; n x n_samples x c x h x w if ``n_samples > 1``.

        Raises
        ------
        TypeError
            An array without ``images``, or images that are not uint8.
        ValueError
            Genes, channels or sizes differ from the model's; expression is negative or missing.
        """
        check_range("n_samples", n_samples, low=1)
        check_range("fade", fade, low=0, high=1)
        seed = settings.seed if seed is None else seed
        expression = ExpressionInput(data, self.registry, layer)
        source = expression if layer == source_layer else ExpressionInput(data, self.registry, source_layer)
        crops = self._crops(data, images, expression.n)
        out = np.empty((expression.n, n_samples, *crops.images.shape[1:]), dtype=np.uint8)
        options: Any = {"refine": refine, "refine_steps": refine_steps, "progress": progress}
        for a, b, codes in self._codes(crops, source, batch_size, device, **options):
            x = torch.from_numpy(expression.rows(a, b)).to(self.device)
            for sample in range(n_samples):
                noise: Any = "none"
                if n_samples > 1:
                    noise = cell_seeds(expression.names[a:b], seed, sample, "noise")
                out[a:b, sample] = self._decode(codes, x, fade, noise)
        return out[:, 0] if n_samples == 1 else out

    def interpolate(
        self,
        data: AnnData | Any,
        start: np.ndarray,
        stop: np.ndarray,
        *,
        t: np.ndarray,
        fade: np.ndarray,
        source_layer: str | None = None,
        refine: int = 0,
        refine_steps: int = 0,
        images: Any = None,
        batch_size: int | None = None,
        device: str | torch.device | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Images along ``(1 - t) start + t stop``; each cell is encoded once.

        Parameters
        ----------
        data
            As for :meth:`generate`.
        start, stop
            Expression n x p at both ends, columns as in ``data``.
        t, fade
            Place on the way and fade of each step.
        source_layer, refine, refine_steps, images, batch_size, device, progress
            As for :meth:`generate`.

        Returns
        -------
        uint8, steps x n x c x h x w.
        """
        source = ExpressionInput(data, self.registry, source_layer)
        crops = self._crops(data, images, source.n)
        ends = [np.asarray(m, dtype=np.float32) for m in (start, stop)]
        for m in ends:
            if m.shape != (source.n, len(self.registry.genes)) or not np.isfinite(m).all() or (m < 0).any():
                msg = f"start and stop must be counts of {source.n} cells and {len(self.registry.genes)} genes, without gaps."
                raise ValueError(msg)
        if source.order is not None:
            ends = [m[:, source.order] for m in ends]
        out = np.empty((len(t), source.n, *crops.images.shape[1:]), dtype=np.uint8)
        options: Any = {"refine": refine, "refine_steps": refine_steps, "progress": progress}
        for a, b, codes in self._codes(crops, source, batch_size, device, **options):
            first, last = (torch.from_numpy(np.ascontiguousarray(m[a:b])).to(self.device) for m in ends)
            for k, (place, strength) in enumerate(zip(t, fade, strict=True)):
                x = torch.lerp(first, last, float(place))
                out[k, a:b] = self._decode(codes, x, float(strength), "none")
        return out

    def embed_images(
        self, data: AnnData | Any, *, batch_size: int | None = None, device: str | torch.device | None = None
    ) -> np.ndarray:
        """Unit-length embeddings n x dim of images by the CLIP inside; see :meth:`CLIP.embed_images`."""
        if device is not None:
            self.to(device)
        return embed_images(self.towers, ImageInput(data, self.registry, same_size=False), batch_size)

    def _crops(self, data: AnnData | Any, images: Any, n: int) -> ImageInput:
        if images is None and not hasattr(data, "obsm"):
            msg = (
                f"an inversion draws real cells: give images= beside a {type(data).__name__}, or an AnnData with crops."
            )
            raise TypeError(msg)
        crops = ImageInput(data if images is None else images, self.registry)
        if crops.n != n:
            msg = f"{crops.n} images for {n} cells."
            raise ValueError(msg)
        return crops

    def _codes(
        self,
        crops: ImageInput,
        source: ExpressionInput,
        batch_size: int | None,
        device: str | torch.device | None,
        *,
        refine: int,
        refine_steps: int,
        progress: bool | None,
    ) -> Iterator[tuple[int, int, Codes]]:
        """First and last row of each block, and the codes of its cells."""
        check_range("refine", refine, low=0)
        check_range("refine_steps", refine_steps, low=0)
        if device is not None:
            self.to(device)
        loss = self.config.training.loss
        distances = self._networks_of_loss() if refine_steps else (None, None)
        size = batch_size or self.cells_at_once()
        check_range("batch_size", size, low=1)
        with progress_bar(crops.n, "invert", progress=progress) as bar:
            for a in range(0, crops.n, size):
                b = min(a + size, crops.n)
                images = torch.from_numpy(crops.rows(a, b)).to(self.device)
                codes = find_codes(
                    self.encoder,
                    self.generator,
                    self.towers,
                    images,
                    torch.from_numpy(source.rows(a, b)).to(self.device),
                    passes=self.config.training.passes + refine,
                    refine_steps=refine_steps,
                    distances=distances,
                    weights=(loss.l2, loss.perceptual_weight, loss.identity_weight),
                )
                yield a, b, codes
                bar.update(b - a)

    def _networks_of_loss(self) -> tuple[Any, Any]:
        """The frozen networks of the training's loss, loaded when first asked for."""
        if self._distances is None:
            self._distances = make_distances(self.config.training.loss, self.towers)
            for network in self._distances:
                if network is not None:
                    network.eval().requires_grad_(False).to(self.device)  # noqa: FBT003
        return self._distances

    @torch.no_grad()
    def _decode(self, codes: Codes, x: Tensor, fade: float, noise: Any) -> np.ndarray:
        images = decode(self.generator, codes.base, codes.code, x, fade=fade, noise=noise)
        return to_uint8(images).cpu().numpy()


def effects_apart(
    model: Inversion,
    adata: AnnData,
    layer: str = _keys.EDITED,
    fade: float = 1.0,
    *,
    source_layer: str | None = None,
    refine: int = 0,
    refine_steps: int = 0,
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> dict[str, np.ndarray]:
    """The effects of an edited reconstruction, apart: fading changes an image even if no gene does.

    Parameters
    ----------
    model
        An inversion.
    adata
        Object with crops and the edited layer.
    layer
        Edited expression.
    fade
        Strength of the fade in ``fade_only`` and ``both``.
    source_layer, refine, refine_steps, batch_size, device, progress
        As for :meth:`Inversion.generate`.

    Returns
    -------
    ``{"reconstructed", "fade_only", "genes_only", "both"}``, each n x c x h x w uint8: (unedited, 0), (unedited, fade),
    (edited, 0), (edited, fade). Each cell is encoded once.
    """
    check_range("fade", fade, low=0, high=1)
    before = ExpressionInput(adata, model.registry, source_layer)
    after = ExpressionInput(adata, model.registry, layer)
    crops = model._crops(adata, None, before.n)
    names = ("reconstructed", "fade_only", "genes_only", "both")
    out = {name: np.empty(crops.images.shape, dtype=np.uint8) for name in names}
    options: Any = {"refine": refine, "refine_steps": refine_steps, "progress": progress}
    for a, b, codes in model._codes(crops, before, batch_size, device, **options):
        own, edited = (torch.from_numpy(m.rows(a, b)).to(model.device) for m in (before, after))
        for name, x, strength in zip(names, (own, own, edited, edited), (0.0, fade, 0.0, fade), strict=True):
            out[name][a:b] = model._decode(codes, x, strength, "none")
    return out
