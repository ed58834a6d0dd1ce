"""The feature space that distances are measured in, and features of many images without keeping them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from sst import _keys
from sst._settings import logger, settings
from sst._validate import check_key, describe_options
from sst.io import crop_reader
from sst.metrics import FeatureSpace, Inception, Moments, NamedFunction, PixelPCA

from ._channels import NucleusView, get_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from anndata import AnnData

SPACES = ("auto", "clip", "inception", "pixel-pca", "morphology")
CHUNK = 512  # images in memory at a time
KEEP = 5000  # feature vectors kept of one sample, for distances that need the vectors themselves


def iter_images(images: Any, rows: np.ndarray, chunk: int = CHUNK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows (sorted) and their images, chunk by chunk; from numpy, dask or zarr."""
    rows = np.sort(np.asarray(rows))
    take = row_reader(images)
    for i in range(0, len(rows), chunk):
        part = rows[i : i + chunk]
        yield part, take(part)


def row_reader(images: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A function from rows to their images; stores are read through their memory map."""
    if hasattr(images, "dask"):
        return crop_reader(images).take
    return lambda rows: np.asarray(images[rows])


def resolve_features(adata: AnnData, features: Any, rows: np.ndarray, *, device: str | None = None) -> FeatureSpace:
    """The feature space that ``features`` means; the ones that must be fitted are, on the real crops of ``rows``.

    Parameters
    ----------
    adata
        Paired cells.
    features
        ``"auto"`` (the object's own CLIP if one was trained, else ``"pixel-pca"``), ``"clip"``, ``"inception"`` (fetches
        the weights; ``"inception:PATH"`` reads them), ``"pixel-pca"``, ``"morphology"``, a CLIP model, or a function.
    rows
        Cells whose real crops fit what is fitted.
    device
        For networks.
    """
    if not isinstance(features, str):
        if hasattr(features, "embed_images"):
            return _clip_space(features)
        return features if isinstance(features, FeatureSpace) else NamedFunction(features)
    name, _, path = features.partition(":")
    if name not in SPACES:
        msg = f"features={features!r} is not known. {describe_options([*SPACES, 'inception:PATH'], features)}"
        raise ValueError(msg)
    if name in {"auto", "clip"}:
        model = own_clip(adata)
        if model is not None:
            return _clip_space(model)
        if name == "clip":
            msg = "features='clip': no CLIP was trained on this object; train one with sst.tl.train_clip, or pass one."
            raise KeyError(msg)
        name = "pixel-pca"
    if name == "inception":
        return Inception(path or "download", device=device)
    images = get_images(adata, _keys.CROPS)
    fit_rows = rows if len(rows) <= 4 * KEEP else np.random.default_rng(0).choice(rows, 4 * KEEP, replace=False)
    if name == "pixel-pca":
        return PixelPCA().fit(batch for _, batch in iter_images(images, fit_rows))
    return MorphologySpace(adata).fit(images, fit_rows[:KEEP])


class MorphologySpace:
    """Nuclear shape and intensities as features, in standard deviations of the real cells they were fitted on."""

    def __init__(self, adata: AnnData) -> None:
        self._view = NucleusView.of(adata)
        self.name = "morphology (unfitted)"
        self._mean = self._sd = np.zeros(0)

    def _raw(self, images: np.ndarray) -> np.ndarray:
        table = self._view.measure(images, n_jobs=1)
        keep = [
            c
            for c in table.columns
            if c not in {"nucleus_area", "nucleus_status", "nucleus_ok"} and not c.endswith("_total")
        ]
        return table[keep].to_numpy(float)

    def fit(self, images: Any, rows: np.ndarray) -> MorphologySpace:
        """Learn mean and standard deviation."""
        raw = np.concatenate([self._raw(batch) for _, batch in iter_images(images, rows)])
        self._mean = np.nan_to_num(np.nanmean(raw, axis=0))
        self._sd = np.nan_to_num(np.nanstd(raw, axis=0))
        self._sd[self._sd == 0] = 1
        self.name = f"morphology ({raw.shape[1]} features, scaled on {len(raw)} real cells)"
        return self

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features n x d; what could not be measured is put at the mean."""
        return np.nan_to_num((self._raw(images) - self._mean) / self._sd)


def own_clip(adata: AnnData) -> Any:
    """The CLIP that was trained on this object; ``None`` if there is none."""
    from sst import models

    for name, kind in models.own_models(adata).items():
        if kind == "clip":
            return models.resolve(adata, name)
    return None


def _clip_space(model: Any) -> NamedFunction:
    return NamedFunction(model.embed_images, name=f"clip (own encoder, {str(model.hash)[:8]})")


@dataclass
class FeatureSample:
    """Features of one sample of images: its moments, and at most :data:`KEEP` of the vectors."""

    n: int
    vectors: np.ndarray
    moments: Moments | None = None

    @property
    def gaussian(self) -> np.ndarray | Moments:
        """What second-order distances take: all vectors where all were kept, else the moments."""
        return self.vectors if self.moments is None else self.moments


def sample_features(
    space: FeatureSpace, images: Any, draws: Mapping[Any, np.ndarray], *, keep: int = KEEP, label: str = "features"
) -> dict[Any, FeatureSample]:
    """Features of several samples of the rows of one image slot; each image is embedded once.

    Memory does not grow with the number of cells: of samples larger than ``keep`` only moments are held, and the first
    ``keep`` vectors.

    Parameters
    ----------
    space
        Images to features.
    images
        n x c x h x w.
    draws
        Name of the sample -> its rows.
    keep
        Vectors kept of a sample.
    label
        Of the progress bar.

    Raises
    ------
    ValueError
        Features that are not finite.
    """
    rows = np.unique(np.concatenate(list(draws.values()))) if draws else np.zeros(0, int)
    large = {name: len(r) > keep for name, r in draws.items()}
    moments = {name: Moments() for name in draws}
    kept: dict[Any, list[np.ndarray]] = {name: [] for name in draws}
    held = dict.fromkeys(draws, 0)
    ordered = {name: np.sort(r) for name, r in draws.items()}
    with tqdm(total=len(rows), desc=label, disable=not settings.progress, leave=False) as bar:
        for part, batch in iter_images(images, rows):
            vectors = np.asarray(space(batch))
            for name, r in ordered.items():
                inside = r[np.searchsorted(r, part[0]) : np.searchsorted(r, part[-1], side="right")]
                if not len(inside):
                    continue
                own = vectors[np.searchsorted(part, inside)]
                if large[name]:
                    moments[name].update(own)
                room = max(0, (keep if large[name] else len(r)) - held[name])
                kept[name].append(own[:room])
                held[name] += len(own[:room])
            bar.update(len(part))
    return {
        name: FeatureSample(len(r), np.concatenate(kept[name]), moments[name] if large[name] else None)
        for name, r in draws.items()
        if len(r)
    }


def check_groupby(adata: AnnData, groupby: str | None) -> str:
    """``groupby``, or the grouping of the crops' limits (of slides in groups: ``"condition"``, if there is one); checked to be there."""
    if groupby is None:
        limits = adata.uns.get(_keys.CROPS, {}).get("limits", {})
        stored = str(limits.get("groupby", "")) if hasattr(limits, "get") else ""
        groupby = stored if stored in adata.obs and not _are_slides(adata, stored) else _keys.CONDITION
    check_key(adata, "obs", groupby, name="groupby")
    return groupby


def _are_slides(adata: AnnData, column: str) -> bool:
    """Whether a column divides the categories of ``obs["condition"]``: slides, or donors, that are not what is compared."""
    if _keys.CONDITION not in adata.obs or column == _keys.CONDITION:
        return False
    pairs = adata.obs[[column, _keys.CONDITION]].astype(str).drop_duplicates()
    return column == "slide" or len(pairs) == pairs[column].nunique() > pairs[_keys.CONDITION].nunique()


def without_slots(adata: AnnData, layer: str | None = None) -> AnnData:
    """What models need of the object, without its other slots (nothing is copied)."""
    return ad.AnnData(
        X=adata.X,
        obs=adata.obs,
        var=pd.DataFrame(index=adata.var_names),
        obsm={_keys.CROPS: adata.obsm[_keys.CROPS]},
        uns={_keys.CROPS: adata.uns[_keys.CROPS]},
        layers={name: adata.layers[name] for name in (layer, _keys.SEGMENTED) if name in adata.layers},
    )


def held_out(adata: AnnData) -> np.ndarray:
    """Mask of held-out cells; all cells, with a warning, where nothing says which were trained on."""
    if _keys.SPLIT in adata.obs:
        mask = (adata.obs[_keys.SPLIT].astype(str) == "test").to_numpy()
        if mask.any():
            return mask
    logger.warning("obs['split'] names no test cells: evaluating on all cells, those trained on included.")
    return np.ones(adata.n_obs, bool)
