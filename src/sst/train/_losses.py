"""Losses as pure functions of what networks return."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def logistic_real(logits: Tensor) -> Tensor:
    """``softplus(-D)``: what D pays for real images, and G for its own (non-saturating; Goodfellow et al., 2014)."""
    return F.softplus(-logits).mean()


def logistic_fake(logits: Tensor) -> Tensor:
    """``softplus(D)``: what D pays for images that are not what they claim to be."""
    return F.softplus(logits).mean()


def fakes(generated: Tensor, mismatched: Tensor | None, share: Tensor | float) -> Tensor:
    """D's loss on fakes: generated images, and real images with another cell's expression.

    Parameters
    ----------
    generated, mismatched
        Logits of both kinds, B each (or more mismatched ones); ``None``: no mismatched pairs.
    share
        Weight of the mismatched pairs; the generated images have ``1 - share``.
    """
    loss = logistic_fake(generated)
    return loss if mismatched is None else (1 - share) * loss + share * logistic_fake(mismatched)


def swap_expression(logits: Tensor, image: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Logits of the same images beside another expression, without another pass of the discriminator.

    The score is linear in the expression's embedding, ``D = ... + image . embedding / sqrt(d)``, so that
    ``D' = D + image . (other - own) / sqrt(d)``.

    Parameters
    ----------
    logits
        Of the images with their own expression, B.
    image, own, other
        Embeddings of the images and of both expressions, B x d.
    """
    return logits + (image * (other - own)).sum(dim=1) / math.sqrt(image.shape[1])


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean squared norm of the gradient of the logits with respect to real images (Mescheder et al., 2018)."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_lengths(images: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
    """Length of ``J^T y`` for each cell: how much images move with the styles (Karras et al., 2020, eq. 4).

    Parameters
    ----------
    images
        B x c x h x w.
    styles
        B x L x d, of which the images were made.
    noise
        ``y``, standard normal, in the shape of the images.

    Returns
    -------
    B lengths: root of the sum over ``d``, averaged over the ``L`` style inputs inside the root.
    """
    scaled = noise / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * scaled).sum(), styles, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def info_nce(a: Tensor, b: Tensor, temperature: float, slides: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE: row i of ``a`` belongs to row i of ``b`` and to no other (van den Oord et al., 2018).

    Parameters
    ----------
    a, b
        B x d; compared by cosine.
    temperature
        The cosines are divided by it.
    slides
        B slide numbers: rows are told from those of their own slide alone (``None``: from all).
    """
    with torch.autocast(a.device.type, enabled=False):  # cosines of a low temperature need their digits
        similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature  # B x B
    if slides is not None:
        similarity = similarity.masked_fill(slides[:, None] != slides, -torch.inf)
    target = torch.arange(a.shape[0], device=a.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
