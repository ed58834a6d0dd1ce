"""What a feature space is, and the one that is always there: principal components of small images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from sst._validate import check_range

from ._images import as_images

if TYPE_CHECKING:
    from collections.abc import Iterable


@runtime_checkable
class FeatureSpace(Protocol):
    """Turns images into features.

    Attributes
    ----------
    name
        Says what the features are, with a short hash of the weights where there are any; every distance carries it.
    """

    name: str

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features n x d of images n x c x h x w, uint8."""
        ...


class NamedFunction:
    """A user's function as a feature space; its name is the function's own."""

    def __init__(self, function: object, name: str | None = None) -> None:
        if not callable(function):
            msg = f"features: expected a function of images, got {type(function).__name__}."
            raise TypeError(msg)
        self._function = function
        self.name = name or str(getattr(function, "name", getattr(function, "__name__", type(function).__name__)))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features n x d; whatever has more axes is flattened."""
        out = self._function(images)
        out = out.detach().cpu().numpy() if hasattr(out, "detach") else np.asarray(out)
        if out.ndim < 2 or len(out) != len(images):
            msg = f"features {self.name!r} gave shape {out.shape} for {len(images)} images; expected n x d."
            raise ValueError(msg)
        return out.reshape(len(out), -1)


class PixelPCA:
    """Principal components of images shrunk to ``side`` x ``side`` pixels: no network, no download, any channels.

    Fit it on real images: the mean variance of its features over them is 1. What it sees is coarse (where things are and
    how bright), which its name says. Use a trained encoder for anything finer.

    Parameters
    ----------
    n_components
        Features at most.
    side
        Images are averaged down to this many pixels a side first.
    """

    def __init__(self, n_components: int = 64, *, side: int = 16) -> None:
        check_range("n_components", n_components, low=1)
        check_range("side", side, low=1)
        self.n_components, self.side = n_components, side
        self.name = f"pixel-pca (unfitted, {side} px)"
        self._mean: np.ndarray | None = None
        self._axes: np.ndarray | None = None

    def fit(self, batches: Iterable[np.ndarray]) -> PixelPCA:
        """Learn the axes from a stream of image batches."""
        from ._moments import Moments

        moments = Moments.stream(self._small(batch) for batch in batches)
        values, vectors = np.linalg.eigh(moments.covariance)
        keep = min(self.n_components, int((values > 1e-12 * values[-1]).sum()) or 1)
        axes = vectors[:, ::-1][:, :keep]
        # an eigenvector has no sign: its largest entry is made positive
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(keep)])
        # one unit for all: the mean variance of a feature of the real images is 1, whatever their brightness
        self._mean, self._axes = moments.mean, axes / np.sqrt(max(float(values[::-1][:keep].mean()), 1e-12))
        self.name = f"pixel-pca ({keep} components of {self.side} px, fitted on {moments.n} images)"
        return self

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features n x d.

        Raises
        ------
        ValueError
            It is not fitted.
        """
        if self._mean is None or self._axes is None:
            msg = "PixelPCA is not fitted: call fit with batches of real images."
            raise ValueError(msg)
        return (self._small(images) - self._mean) @ self._axes

    def _small(self, images: np.ndarray) -> np.ndarray:
        """Area averages, n x (c * side * side)."""
        images = as_images(images)
        n, c, h, w = images.shape
        rows, cols = (_average(size, min(self.side, size)) for size in (h, w))
        small = rows @ images.astype(np.float64) @ cols.T
        return small.reshape(n, c * small.shape[2] * small.shape[3])


def _average(size: int, side: int) -> np.ndarray:
    """Matrix side x size: the average over equal stretches, cutting pixels where it must."""
    edges = np.linspace(0, size, side + 1)
    left, right = np.maximum(edges[:-1, None], np.arange(size)), np.minimum(edges[1:, None], np.arange(1, size + 1))
    overlap = np.maximum(right - left, 0)
    return overlap / overlap.sum(axis=1, keepdims=True)
