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


def fakes(generated: Tensor, mismatched: Tensor | None, share: float) -> Tensor:
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


def info_nce(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE: row i of ``a`` belongs to row i of ``b`` and to no other (van den Oord et al., 2018).

    Parameters
    ----------
    a, b
        B x d; compared by cosine.
    temperature
        The cosines are divided by it.
    """
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature  # B x B
    target = torch.arange(a.shape[0], device=a.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


def ring_means(images: Tensor, rings: int = 8) -> Tensor:
    """What an image looks like whatever way it is turned: means and mean squares over rings around its centre.

    Parameters
    ----------
    images
        B x c x h x w in [-1, 1]; intensities are counted from black.
    rings
        Rings of equal width from the centre to the edge; corners belong to the last one.

    Returns
    -------
    B x (2 c rings).
    """
    b, c, h, w = images.shape
    y = torch.arange(h, device=images.device) - (h - 1) / 2
    x = torch.arange(w, device=images.device) - (w - 1) / 2
    radius = torch.sqrt(y[:, None] ** 2 + x[None] ** 2) / (min(h, w) / 2)  # 1 at the edge
    index = (radius * rings).long().clamp_(max=rings - 1).flatten()
    member = F.one_hot(index, rings).to(torch.float32)
    weight = member / member.sum(dim=0).clamp_min(1)  # h w x rings
    flat = (images.float().reshape(b, c, h * w) + 1) / 2  # 0: black
    return torch.cat([flat @ weight, flat.square() @ weight], dim=2).flatten(1)


def moment_loss(made: Tensor, again: Tensor, real: Tensor, scale: Tensor) -> Tensor:
    """Squared distance between the *mean over latents* of generated features and the features of the paired real image.

    Of two generated images of one cell, with features ``f1``, ``f2`` and independent latents, and the real one's ``t``,
    ``E[(f1 - t)(f2 - t)] = (E f - t)^2``: unlike a plain regression it does not punish images of one cell for being different.
    Its minimum over all generators is ``E[f | x]`` = the conditional mean of the real features given *all* genes, so a gene
    that only follows a cause gets no weight of its own. The second image has no gradient: ``2 (f2 - t) f1`` has the same one in
    expectation.

    Parameters
    ----------
    made, again
        Features of both images, B x d; ``again`` is taken as a constant.
    real
        Features of the real image, B x d.
    scale
        Standard deviation of each feature over real cells, d.

    Returns
    -------
    Mean over cells and features; the value is that of the product, the gradient as above.
    """
    left, right = (made - real) / scale, ((again - real) / scale).detach()
    product = left * right
    return (2 * product - product.detach()).mean()
