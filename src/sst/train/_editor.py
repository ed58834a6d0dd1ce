"""The phases of the editor: D, R1, and E, whose targets are other cells' expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from sst.nn import gather_rows

from ._gan import adam
from ._losses import fakes, info_nce, logistic_real, r1_penalty, swap_expression
from ._phases import Phase, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from sst.nn import CellEditor, Discriminator

    from ._data import Batch
    from ._editor_config import EditorConfig


@dataclass(frozen=True)
class Targets:
    """What the cells of a batch are edited to: counts (B, p) and labels (B,)."""

    expression: Tensor
    labels: Tensor


class EditorLosses:
    """The loss of each phase, for one editor and one discriminator."""

    def __init__(self, editor: CellEditor, discriminator: Discriminator, config: EditorConfig) -> None:
        self.e, self.d, self.config = editor, discriminator, config.loss

        def edited(images: Tensor, own: Tensor, target: Tensor) -> Tensor:
            return editor(images, own, target)

        def features(images: Tensor) -> Tensor:
            return discriminator.image_features(images)

        self._networks = edited, features
        self._edited: Callable[..., Tensor] = edited
        self._features: Callable[..., Tensor] = features

    def compile(self, transform: Callable[[Any], Any] | None) -> None:
        """Let the main phases use ``transform`` of both networks (``None``: the networks themselves); same parameters, same draws."""
        edited, features = self._networks
        self._edited, self._features = (transform(edited), transform(features)) if transform else (edited, features)

    def targets(self, batch: Batch) -> Targets:
        """Other cells' expression; for some cells of a random set of genes only, beside their own label."""
        partial = batch.draws.uniform(1) < self.config.partial
        share, genes = batch.draws.uniform(1), batch.draws.uniform(batch.expression.shape[1])
        kept = partial & (genes >= share)  # B x p
        return Targets(
            torch.where(kept, batch.expression, batch.other),
            torch.where(partial[:, 0], batch.labels, batch.other_labels),
        )

    def _hold(self, batch: Batch) -> Tensor | float:
        """Factor of what rewards images for telling more of the genes than real ones do: 1, then falling to 0 (``taper``)."""
        return ((1 - batch.progress) / self.config.taper).clamp(max=1) if self.config.taper else 1.0

    def _alignment(self, images: Tensor, expression: Tensor) -> Tensor:
        """InfoNCE over the whole batch, all processes' cells."""
        return info_nce(gather_rows(images), gather_rows(expression), self.config.temperature)

    def discriminator(self, batch: Batch) -> dict[str, Tensor]:
        """Real cells against edited ones, and against real ones beside the expression that is aimed at."""
        to = self.targets(batch)
        with torch.no_grad():
            made = self._edited(batch.images, batch.expression, to.expression)
        seen = self._features(batch.images)
        real, embedding = self.d.score(seen, batch.labels, batch.expression), self.d.image_embedding(seen)
        fake = self.d.score(self._features(made), to.labels, to.expression)
        own, other = self.d.expression_embedding(batch.expression), self.d.expression_embedding(to.expression)
        mismatched = swap_expression(real, embedding, own, other) if self.config.mismatch else None
        loss = logistic_real(real) + fakes(fake, mismatched, self.config.mismatch * self._hold(batch))
        found = {"real": real.mean(), "fake": fake.mean()}
        if mismatched is not None:
            found["mismatched"] = mismatched.mean()
        if self.config.alignment:
            found["alignment"] = self._alignment(embedding, own)
            loss = loss + self.config.alignment * found["alignment"]
        return {"loss": loss, **found}

    def r1(self, batch: Batch) -> dict[str, Tensor]:
        """R1 on real images, times the interval."""
        images = batch.images.detach().requires_grad_(True)  # noqa: FBT003
        penalty = r1_penalty(self.d(images, batch.labels, batch.expression), images)
        return {"loss": penalty * (self.config.r1_weight / 2 * self.config.r1_interval), "penalty": penalty}

    def editor(self, batch: Batch) -> dict[str, Tensor]:
        """Cells that the discriminator takes for real ones of the expression aimed at, and that can be edited back."""
        to = self.targets(batch)
        made = self._edited(batch.images, batch.expression, to.expression)
        seen = self._features(made)
        fake = self.d.score(seen, to.labels, to.expression)
        loss, found = logistic_real(fake), {"moved": (made.detach() - batch.images).abs().mean()}
        if self.config.cycle:
            back = self._edited(made, to.expression, batch.expression)
            found["cycle"] = (back - batch.images).abs().mean()
            loss = loss + self.config.cycle * found["cycle"]
        if self.config.alignment:
            found["alignment"] = self._alignment(
                self.d.image_embedding(seen), self.d.expression_embedding(to.expression)
            )
            loss = loss + self.config.alignment * self._hold(batch) * found["alignment"]
        return {"loss": loss, **found}


def editor_task(editor: CellEditor, discriminator: Discriminator, config: EditorConfig) -> Task:
    """The task that :func:`fit` trains; set its ``evaluate`` and ``samples`` as you like."""
    losses, optimizer = EditorLosses(editor, discriminator, config), config.optimizer
    r1 = config.loss.r1_interval if config.loss.r1_weight else 0
    phases = [Phase("D", losses.discriminator, ("discriminator",), "discriminator", autocast=False)]
    if r1:
        phases.append(Phase("R1", losses.r1, ("discriminator",), "discriminator", r1, autocast=False))
    phases.append(Phase("E", losses.editor, ("editor",), "editor", autocast=False))
    modules: dict[str, nn.Module] = {"editor": editor, "discriminator": discriminator}
    return Task(
        modules=modules,
        optimizers={
            "editor": adam(list(editor.parameters()), optimizer.lr_generator, optimizer, 0),
            "discriminator": adam(list(discriminator.parameters()), optimizer.lr_discriminator, optimizer, r1),
        },
        phases=phases,
        ema=("editor",),
        compile=losses.compile,
        recordable=True,
    )
