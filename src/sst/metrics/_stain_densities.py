"""Hematoxylin and eosin apart."""

from __future__ import annotations

import numpy as np

from ._images import as_images


def stain_densities(images: np.ndarray) -> np.ndarray:
    """Optical densities of hematoxylin and eosin in images of stained tissue in transmitted light.

    The decadic absorbance of red, green and blue, against white (255), is taken apart by the stains' standard vectors
    (:func:`skimage.color.rgb2hed`). They are not fitted to the slide: another laboratory's stain is read with an error of scale, so
    compare slides with care, and shapes and contrasts within a slide more freely.

    Parameters
    ----------
    images
        n x 3 x h x w, uint8: red, green, blue.

    Returns
    -------
    n x 2 x h x w, float32, >= 0: hematoxylin (nuclei), eosin.

    Raises
    ------
    TypeError
        The images are not uint8.
    ValueError
        They have other than three channels.

    References
    ----------
    Ruifrok and Johnston, *Quantification of histochemical staining by color deconvolution* (2001).
    """
    from skimage.color import rgb2hed

    images = as_images(images)
    if images.dtype != np.uint8:
        msg = f"images are {images.dtype}: stains are taken apart in 8-bit colours."
        raise TypeError(msg)
    if images.shape[1] != 3:
        msg = f"images have {images.shape[1]} channels: red, green and blue are needed."
        raise ValueError(msg)
    apart = rgb2hed(images.astype(np.float32) / np.float32(255), channel_axis=1)
    # in units of six decades, because absorbance is cut at a millionth of white
    return np.ascontiguousarray(6 * apart[:, :2], dtype=np.float32)
