"""The phases of the editor: D, R1, and E, whose targets are other cells' expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from sst.nn import gather_rows, traits

from ._gan import adam
from ._losses import fakes, info_nce, logistic_real, r1_penalty, swap_expression
from ._phases import Phase, Task
from ._schedule import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from sst.nn import CellEditor, Discriminator, Effects

    from ._draws import Batch
    from ._editor_config import EditorConfig


@dataclass(frozen=True)
class Targets:
    """What the cells of a batch are edited to: counts (B, p) and labels (B,)."""

    expression: Tensor
    labels: Tensor


class EditorLosses:
    """The loss of each phase, for one editor and one discriminator."""

    def __init__(self, editor: CellEditor, discriminator: Discriminator, config: EditorConfig, inputs: int = 1) -> None:
        self.e, self.d, self.config, self.inputs = editor, discriminator, config.loss, inputs

        def edited(images: Tensor, own: Tensor, target: Tensor) -> tuple[Tensor, Effects]:
            return editor.explain(images, own, target)

        def features(images: Tensor) -> Tensor:
            return discriminator.image_features(images)

        self._networks = edited, features
        self._edited: Callable[..., tuple[Tensor, Effects]] = edited
        self._features: Callable[..., Tensor] = features

    def compile(self, transform: Callable[[Any], Any] | None) -> None:
        """Let the main phases use ``transform`` of both networks (``None``: the networks themselves); same parameters, same draws."""
        edited, features = self._networks
        self._edited, self._features = (transform(edited), transform(features)) if transform else (edited, features)

    def targets(self, batch: Batch) -> Targets:
        """Other cells' expression; for the last ``partial`` of the cells a random set of their genes only, beside the cells' own labels.

        Of several ``inputs``, each all genes wide, half of these take one as a whole.

        Where there are several slides, the discriminator judges edits to the expression of cells of the same slide: between slides it would
        ask for the other slide's light as well. The others, which it does not judge, go to cells of any slide.
        """
        partial = torch.arange(len(batch.expression), device=batch.expression.device) >= self.whole(batch)
        share, genes = batch.draws.uniform(1), batch.draws.uniform(batch.expression.shape[1])
        kept = genes >= share  # B x p
        if self.inputs > 1:  # half of them in one whole input
            which, one = batch.draws.uniform(1), batch.draws.uniform(1)
            input_of = torch.arange(genes.shape[1], device=genes.device) // (genes.shape[1] // self.inputs)
            kept = torch.where(which < 0.5, input_of[None] != (one * self.inputs).long(), kept)
        kept = partial[:, None] & kept
        other = batch.other if batch.distant is None else torch.where(partial[:, None], batch.distant, batch.other)
        return Targets(
            torch.where(kept, batch.expression, other),
            torch.where(partial, batch.labels, batch.other_labels),
        )

    def whole(self, batch: Batch) -> int:
        """How many cells of the batch, the first ones, get another cell's whole expression."""
        return max(len(batch.expression) - round(len(batch.expression) * self.config.partial), 1)

    def _hold(self, batch: Batch) -> Tensor | float:
        """Factor of what rewards images for telling more of the genes than real ones do: 1, then falling to 0 (``taper``)."""
        return ((1 - batch.progress) / self.config.taper).clamp(max=1) if self.config.taper else 1.0

    def _alignment(self, images: Tensor, expression: Tensor, slides: Tensor | None) -> Tensor:
        """InfoNCE over the whole batch, all processes' cells; within slides."""
        everyone = None if slides is None else gather_rows(slides)
        return info_nce(gather_rows(images), gather_rows(expression), self.config.temperature, everyone)

    def discriminator(self, batch: Batch) -> dict[str, Tensor]:
        """Real cells against edited ones, and against real ones beside the expression that is aimed at."""
        to, n = self.targets(batch), self.whole(batch)
        with torch.no_grad():
            made, _ = self._edited(batch.images[:n], batch.expression[:n], to.expression[:n])
        x, target = batch.expression[:n], to.expression[:n]
        seen = self._features(batch.images[:n])
        slides = _first(batch.slides, n)
        real, embedding = self.d.score(seen, batch.labels[:n], x, slides), self.d.image_embedding(seen)
        fake = self.d.score(self._features(made), to.labels[:n], target, slides)
        own, other = self.d.expression_embedding(x), self.d.expression_embedding(target)
        mismatched = swap_expression(real, embedding, own, other) if self.config.mismatch else None
        loss = logistic_real(real) + fakes(fake, mismatched, self.config.mismatch * self._hold(batch))
        found = {"real": real.mean(), "fake": fake.mean()}
        if mismatched is not None:
            found["mismatched"] = mismatched.mean()
        if self.config.alignment:
            found["alignment"] = self._alignment(embedding, own, slides)
            loss = loss + self.config.alignment * found["alignment"]
        return {"loss": loss, **found}

    def r1(self, batch: Batch) -> dict[str, Tensor]:
        """R1 on real images, times the interval."""
        images = batch.images.detach().requires_grad_(True)  # noqa: FBT003
        penalty = r1_penalty(self.d(images, batch.labels, batch.expression, batch.slides), images)
        return {"loss": penalty * (self.config.r1_weight / 2 * self.config.r1_interval), "penalty": penalty}

    def editor(self, batch: Batch) -> dict[str, Tensor]:
        """Cells that D takes for real ones, whose traits changed as real cells' do, with little effort, and that can be edited back."""
        to, n, config = self.targets(batch), self.whole(batch), self.config
        made, effects = self._edited(batch.images, batch.expression, to.expression)
        seen = self._features(made[:n])
        slides = _first(batch.slides, n)
        loss = logistic_real(self.d.score(seen, to.labels[:n], to.expression[:n], slides))
        found = {"moved": (made.detach() - batch.images).abs().mean()}
        if config.response:
            found["response"] = self._response(batch, to, made)
            loss = loss + config.response * found["response"]
        if config.effort:
            found["effort"] = effects.effort()
            loss = loss + config.effort * found["effort"]
        if config.cycle:
            some = slice(len(made) // 3, None)  # the last ones of the whole edits, and the partial ones
            back, _ = self._edited(made[some], to.expression[some], batch.expression[some])
            found["cycle"] = (back - batch.images[some]).abs().mean()
            loss = loss + config.cycle * found["cycle"]
        if config.alignment:
            found["alignment"] = self._alignment(
                self.d.image_embedding(seen), self.d.expression_embedding(to.expression[:n]), slides
            )
            loss = loss + config.alignment * self._hold(batch) * found["alignment"]
        return {"loss": loss, **found}

    def _response(self, batch: Batch, to: Targets, made: Tensor) -> Tensor:
        """How far the traits' changes are from those that the regression on real cells expects, weighted by what each means here."""
        with torch.no_grad():
            expected = self.e.expected(batch.expression, to.expression)
            before = traits((batch.images + 1) / 2, around=self.e.around)
        change = (traits((made + 1) / 2, around=self.e.around) - before) / self.e.spread
        return (F.smooth_l1_loss(change, expected, beta=0.3, reduction="none") * self.e.weights).mean()


def _first(slides: Tensor | None, n: int) -> Tensor | None:
    return None if slides is None else slides[:n]


def editor_task(editor: CellEditor, discriminator: Discriminator, config: EditorConfig, inputs: int = 1) -> Task:
    """The task that :func:`fit` trains; set its ``evaluate`` and ``samples`` as you like. ``inputs``: how many, side by side, expression is."""
    losses, optimizer = EditorLosses(editor, discriminator, config, inputs), config.optimizer
    r1 = config.loss.r1_interval if config.loss.r1_weight else 0
    phases = [Phase("D", losses.discriminator, ("discriminator",), "discriminator")]
    if r1:
        phases.append(Phase("R1", losses.r1, ("discriminator",), "discriminator", r1))
    phases.append(Phase("E", losses.editor, ("editor",), "editor"))
    modules: dict[str, nn.Module] = {"editor": editor, "discriminator": discriminator}
    optimizers: dict[str, torch.optim.Optimizer] = {
        "editor": adam(list(editor.parameters()), optimizer.lr_generator, optimizer, 0),
        "discriminator": adam(list(discriminator.parameters()), optimizer.lr_discriminator, optimizer, r1),
    }
    first = {name: float(made.param_groups[0]["lr"]) for name, made in optimizers.items()}

    def rates(done: float) -> None:
        for name, made in optimizers.items():
            settle(made, first[name], done, config.loss.settle)

    return Task(
        modules=modules,
        optimizers=optimizers,
        phases=phases,
        ema=("editor",),
        rates=rates,
        compile=losses.compile,
        recordable=True,
    )
