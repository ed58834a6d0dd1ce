"""The contrastive loss with soft targets, and retrieval; pure functions of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


def soft_contrastive_loss(
    image: Tensor, expression: Tensor, *, temperature: float = 1.0, slides: Tensor | None = None
) -> Tensor:
    """Symmetric cross-entropy towards soft targets.

    Pairs that look alike or express alike are not pushed apart as strangers: the target of a row is
    ``softmax((I I^T + E E^T) / 2 * T)``, the logits are ``E I^T / T``, and the loss is the mean of the cross-entropies
    over rows and over columns.

    Parameters
    ----------
    image, expression
        Projections I, E, (n, d), row k of both from the same cell.
    temperature
        T.
    slides
        Slide numbers (n,): cells are told from those of their own slide alone (``None``: from all).

    Returns
    -------
    Scalar.

    Notes
    -----
    Wu & Koelzer 2024, section 2.3 (T = 1). The targets carry no gradient: with it, collapsing all rows onto one point is
    a way to lower the loss.
    """
    logits = expression @ image.T / temperature
    with torch.no_grad():
        similarity = (image @ image.T + expression @ expression.T) / 2 * temperature
        targets = _within(similarity, slides).softmax(-1)
    logits = _within(logits, slides)
    by_expression = -(targets * logits.log_softmax(-1)).sum(-1).mean()
    by_image = -(targets.T * logits.T.log_softmax(-1)).sum(-1).mean()
    return (by_expression + by_image) / 2


def _within(similarity: Tensor, slides: Tensor | None) -> Tensor:
    """Similarities (n, n) with pairs of two slides out of reach: so low that they weigh nothing, finite so that 0 times it is 0."""
    if slides is None:
        return similarity
    return similarity.masked_fill(slides[:, None] != slides, torch.finfo(similarity.dtype).min / 4)


def contrastive_loss(
    image: Tensor, expression: Tensor, *, temperature: float = 0.1, slides: Tensor | None = None
) -> Tensor:
    """Symmetric cross-entropy towards each cell's own partner, by cosine.

    Parameters
    ----------
    image, expression
        Projections (n, d), row k of both from the same cell; brought to unit length here.
    temperature
        What cosines are divided by.
    slides
        As in :func:`soft_contrastive_loss`.

    Returns
    -------
    Scalar.

    Notes
    -----
    Radford et al. 2021, with a fixed temperature.
    """
    logits = _within(F.normalize(expression, dim=1) @ F.normalize(image, dim=1).T / temperature, slides)
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def retrieval_ranks(queries: Tensor, keys: Tensor, *, chunk: int = 2048) -> Tensor:
    """Rank (n,) of each query's own key among all keys by cosine: 1 is the nearest; ties count against the query.

    Parameters
    ----------
    queries, keys
        (n, d), row k of both from the same cell.
    chunk
        Rows compared at a time.
    """
    queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    ranks = []
    for start in range(0, len(queries), chunk):
        similarity = queries[start : start + chunk] @ keys.T
        rows = torch.arange(len(similarity), device=similarity.device)
        ranks.append((similarity >= similarity[rows, rows + start].unsqueeze(1)).sum(1))  # its own key is one of them
    return torch.cat(ranks)


def retrieval(queries: Tensor, keys: Tensor, *, top: int, chunk: int = 2048) -> float:
    """Share of the queries whose own key is among the ``top`` nearest by cosine, in [0, 1]; see :func:`retrieval_ranks`."""
    return float((retrieval_ranks(queries, keys, chunk=chunk) <= top).double().mean())
