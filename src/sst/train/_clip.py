"""The contrastive training, as a task for the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from sst.nn import gather_rows

from ._clip_loss import contrastive_loss, retrieval_ranks, soft_contrastive_loss
from ._draws import to_unit
from ._phases import Phase, Task
from ._schedule import follow_cosine

if TYPE_CHECKING:
    from torch import Tensor

    from sst.nn import ClipTowers

    from ._clip_config import CLIPConfig
    from ._draws import Batch


LOSSES = {"soft": soft_contrastive_loss, "own": contrastive_loss}
WARMUP = 50  # iterations


@torch.no_grad()
def retrieval_quality(
    towers: ClipTowers,
    images: Tensor,
    counts: Tensor,
    *,
    batch_size: int = 64,
    temperature: float = 1.0,
    targets: Literal["soft", "own"] = "soft",
) -> dict[str, float]:
    """How well the towers find a cell's partner among held-out cells.

    Parameters
    ----------
    towers
        Run in evaluation mode, on the device they are on; left as they were.
    images, counts
        (n, c, h, w) uint8 and (n, p), row k of both from the same cell.
    batch_size
        Cells a step, and per batch of the loss.
    temperature, targets
        Of the loss, see :class:`CLIPConfig`.

    Returns
    -------
    ``loss`` (mean over batches); ``image_to_expression_top1``, ``..._top10``, ``expression_to_image_top1``, ``..._top10``: shares
    in [0, 1]; ``chance_top1``, ``chance_top10``: what guessing gives; ``rank``: mean of ``(rank - 1) / (n - 1)``, 0 perfect, 0.5
    guessing.
    """
    device = next(towers.parameters()).device
    training = towers.training
    towers.eval()
    n = len(images)
    image_parts, expression_parts = [], []
    losses: list[Tensor] = []
    for start in range(0, n, batch_size):
        rows = slice(start, start + batch_size)
        image, expression = towers(to_unit(images[rows].to(device)), counts[rows].to(device).float())
        if len(image) == batch_size or not losses:
            losses.append(LOSSES[targets](image, expression, temperature=temperature))
        image_parts.append(image)
        expression_parts.append(expression)
    towers.train(training)
    image, expression = torch.cat(image_parts), torch.cat(expression_parts)
    out = {"loss": float(torch.stack(losses).mean()), "chance_top1": 1 / n, "chance_top10": min(10 / n, 1.0)}
    ranks = []
    for name, queries, keys in (
        ("image_to_expression", image, expression),
        ("expression_to_image", expression, image),
    ):
        rank = retrieval_ranks(queries, keys).double()
        out[f"{name}_top1"] = float((rank <= 1).double().mean())
        out[f"{name}_top10"] = float((rank <= 10).double().mean())
        ranks.append(float((rank - 1).mean()) / max(n - 1, 1))
    out["rank"] = sum(ranks) / 2
    return out


def clip_task(towers: ClipTowers, config: CLIPConfig, held_out: tuple[Tensor, Tensor] | None = None) -> Task:
    """Modules, optimiser and phase of the contrastive training.

    Parameters
    ----------
    towers
        Trained in place.
    config
        Temperature, learning rate, scheduler.
    held_out
        Images (n, c, h, w) uint8 and counts (n, p) of cells that are not trained on; without them nothing is evaluated.
    """
    optimizer = torch.optim.AdamW(towers.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=config.plateau_factor, patience=config.plateau_patience
    )

    def loss(batch: Batch) -> dict[str, Tensor]:
        image, expression = (gather_rows(x.float()) for x in towers(batch.images, batch.expression))
        if config.schedule == "cosine":
            follow_cosine(optimizer, config.lr, batch.done, warmup=(batch.iteration + 1) / (WARMUP + 1))
        slides = None if batch.slides is None else gather_rows(batch.slides)
        return {"loss": LOSSES[config.targets](image, expression, temperature=config.temperature, slides=slides)}

    def evaluate() -> dict[str, float]:
        images, counts = held_out  # type: ignore[misc]
        found = retrieval_quality(
            towers,
            images,
            counts,
            batch_size=config.fit.batch_size,
            temperature=config.temperature,
            targets=config.targets,
        )
        return found | {"distance": found["rank"], "lr": float(optimizer.param_groups[0]["lr"])}

    def on_evaluate(found: dict[str, float]) -> None:
        if config.schedule == "plateau":
            plateau.step(found["loss"])

    towers.train()
    extra: dict[str, Any] = {"evaluate": evaluate, "on_evaluate": on_evaluate} if held_out is not None else {}
    return Task(
        modules={"towers": towers},
        optimizers={"towers": optimizer},
        phases=[Phase("clip", loss, trains=("towers",), optimizer="towers")],
        stateful={"plateau": plateau},
        **extra,
    )
