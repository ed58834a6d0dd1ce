"""The discriminator: residual StyleGAN2 D, projection-conditioned on the label and on the expression."""

from __future__ import annotations

import math
from typing import Literal, overload

import torch
from torch import distributed, nn
from torch.nn import functional as F

from sst._validate import check_choice
from sst.nn.ops import activate, conv1x1, conv3x3, downsample

from ._layers import (
    GAIN,
    EqualLinear,
    EqualMLP,
    ExpressionTransform,
    channels_at,
    check_resolution,
    leaky_relu,
    pixel_norm,
)
from ._precision import ComputeDtype, compute_dtype, full_precision
from ._processes import gather_rows


class _Conv(nn.Module):
    """Equalised 3x3 convolution, bias, leaky ReLU; ``down``: to half the size."""

    def __init__(self, in_channels: int, out_channels: int, *, down: bool = False, gain: float = GAIN) -> None:
        super().__init__()
        self.gain = gain
        self.weight = nn.Parameter(torch.randn(out_channels, 3, 3, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = 1 / math.sqrt(9 * in_channels)
        self.down = down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = conv3x3(x, self.weight * (self.scale * self.gain), down=self.down)
        return activate(y, self.bias * self.gain)


class _Block(nn.Module):
    """Residual block to half the size: (conv, conv down) + (FIR down, 1x1), over sqrt 2, which cancels the second gain."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = _Conv(in_channels, in_channels)
        self.conv1 = _Conv(in_channels, out_channels, down=True, gain=1.0)
        self.skip = nn.Parameter(torch.randn(out_channels, in_channels))
        self.skip_scale = math.sqrt(0.5 / in_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv1(self.conv0(x)) + conv1x1(downsample(x), self.skip * self.skip_scale)


def minibatch_stddev(x: torch.Tensor, group: int, eps: float = 1e-8, *, shared: bool = False) -> torch.Tensor:
    """Append one map to (B, H, W, C): the standard deviation over groups of cells, averaged over the maps and the pixels.

    Cell b belongs to group ``b mod (B / size)``; size is the largest divisor of B that is at most ``group``. With ``shared`` the batch
    is that of all processes that train together.
    """
    mine, h, w, c = x.shape
    y = x.to(torch.promote_types(x.dtype, torch.float32))
    y = gather_rows(y) if shared else y
    b = y.shape[0]
    size = max(g for g in range(1, min(group, b) + 1) if b % g == 0)
    y = y.view(size, b // size, h * w * c)
    std = ((y - y.mean(dim=0)).square().mean(dim=0) + eps).sqrt().mean(dim=1)  # (B / size,)
    extra = std.repeat(size)
    if mine < b:
        start = mine * distributed.get_rank()
        extra = extra[start : start + mine]
    extra = extra.view(mine, 1, 1, 1).expand(mine, h, w, 1)
    return torch.cat([x, extra.to(x.dtype)], dim=3)


class Discriminator(nn.Module):
    r"""Score of an image as that of a cell of a given label and expression.

    Parameters
    ----------
    img_channels, resolution, channel_base, channel_max
        As in :class:`Generator`.
    n_labels
        Number of labels (groups of cells).
    n_genes
        Number of genes p; needed for ``conditioning="expression"``.
    n_slides
        Number of slides that the score is told (0: none): a slide's light and stain then say nothing of a cell's label or expression.
    conditioning
        ``"label"``: the paper's projection on the label's embedding. ``"expression"``: that plus a projection on the embedding of
        the cell's expression, so that an image must fit its own genes.
    embed_dim
        Width of the embeddings.
    mbstd_group
        Group size of the minibatch standard deviation.
    input_transform, negatives
        See :class:`ExpressionTransform`.
    expression_lr_multiplier
        Learning-rate multiplier of the network that embeds expression.

    Notes
    -----
    With features f of the image the score is

    .. math:: \left(A_1 f \cdot \hat e(\mathrm{label}) + A_2 f \cdot \hat e(x) + A_3 f \cdot \hat e(\mathrm{slide})\right) / \sqrt{d},

    each with its own linear map A to the d = ``embed_dim`` of the embeddings (the paper: 256), which are pixel-normed (Miyato & Koyama, 2018).
    """

    def __init__(
        self,
        *,
        img_channels: int,
        resolution: int = 128,
        n_labels: int = 2,
        n_genes: int | None = None,
        n_slides: int = 0,
        conditioning: Literal["expression", "label"] = "expression",
        channel_base: int = 32768,
        channel_max: int = 512,
        embed_dim: int = 256,
        mbstd_group: int = 4,
        input_transform: Literal["log1p", "counts"] = "log1p",
        negatives: Literal["zero", "keep"] | None = None,
        expression_lr_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        levels = check_resolution(resolution) - 1
        self.conditioning = check_choice("conditioning", conditioning, ("expression", "label"))
        if conditioning == "expression" and n_genes is None:
            msg = "conditioning='expression' needs n_genes."
            raise ValueError(msg)
        self.img_channels, self.resolution, self.n_labels = img_channels, resolution, n_labels
        self.n_slides = n_slides
        self.embed_dim, self.mbstd_group = embed_dim, mbstd_group
        self.compute_dtype: ComputeDtype = "auto"

        widths = [channels_at(resolution // 2**n, channel_base, channel_max) for n in range(levels)]
        self.from_image = EqualLinear(img_channels, widths[0])
        self.blocks = nn.ModuleList(_Block(i, o) for i, o in zip(widths[:-1], widths[1:], strict=True))
        self.last_conv = _Conv(widths[-1] + 1, widths[-1])
        self.last_linear = EqualLinear(16 * widths[-1], widths[-1])
        self.label_projection = EqualLinear(widths[-1], embed_dim)
        self.label_embedding = EqualLinear(n_labels, embed_dim)
        if conditioning == "expression" and n_genes is not None:
            self.transform = ExpressionTransform(n_genes, input_transform, negatives)
            self.expression_network = EqualMLP([n_genes, embed_dim, embed_dim], lr_multiplier=expression_lr_multiplier)
            self.expression_projection = EqualLinear(widths[-1], embed_dim)
        if n_slides:
            self.slide_projection = EqualLinear(widths[-1], embed_dim)
            self.slide_embedding = EqualLinear(n_slides, embed_dim)

    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set per-gene mean and standard deviation of log(1 + counts), (p,) each; nothing to do for a label-only D."""
        if self.conditioning == "expression":
            self.transform.set_statistics(mean, std)

    def expression_embedding(self, x: torch.Tensor) -> torch.Tensor:
        """Pixel-normed embedding of counts: (B, p) -> (B, embed_dim)."""
        if self.conditioning != "expression":
            msg = "this discriminator has conditioning='label': it does not embed expression."
            raise ValueError(msg)
        with full_precision(x.device):
            return pixel_norm(self.expression_network(self.transform(x)))

    def image_features(self, img: torch.Tensor) -> torch.Tensor:
        """Last features of images: (B, c, R, R) -> (B, width)."""
        expected = (self.img_channels, self.resolution, self.resolution)
        if img.ndim != 4 or img.shape[1:] != expected:
            msg = f"images have shape {tuple(img.shape)}; expected (cells, {', '.join(map(str, expected))})."
            raise ValueError(msg)
        first = self.from_image
        dtype = compute_dtype(self.compute_dtype, first.weight)
        with full_precision(first.weight.device):
            x = conv1x1(img.permute(0, 2, 3, 1).to(dtype), first.weight * (first.weight_gain * GAIN))
            return self._judge(activate(x, first.bias * GAIN))

    def _judge(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        x = self.last_conv(minibatch_stddev(x, self.mbstd_group, shared=self.training))
        return leaky_relu(self.last_linear(x.flatten(1).to(self.last_linear.weight.dtype)))

    def image_embedding(self, features: torch.Tensor) -> torch.Tensor:
        """What the score projects on the expression's (or else the label's) embedding: (B, width) -> (B, embed_dim)."""
        project = self.expression_projection if self.conditioning == "expression" else self.label_projection
        with full_precision(features.device):
            return project(features)

    def score(
        self,
        features: torch.Tensor,
        label: torch.Tensor,
        x: torch.Tensor | None = None,
        slide: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Logits (B,) from features of :meth:`image_features`.

        Images that are to be scored against several labels or expressions (mismatched pairs) need their features only once.
        """
        if self.conditioning == "expression" and x is None:
            msg = "conditioning='expression' needs the expression x of the cells."
            raise ValueError(msg)
        if label.ndim == 1:
            label = F.one_hot(label.long(), self.n_labels)
        with full_precision(features.device):
            label_embedding = pixel_norm(self.label_embedding(label.to(features.dtype)))
            score = (self.label_projection(features) * label_embedding).sum(dim=1)
            if self.conditioning == "expression" and x is not None:
                score = score + (self.expression_projection(features) * self.expression_embedding(x)).sum(dim=1)
            if self.n_slides and slide is not None:
                known = (slide >= 0).to(features.dtype)
                embedding = pixel_norm(
                    self.slide_embedding(F.one_hot(slide.clamp_min(0), self.n_slides).to(features.dtype))
                )
                score = score + known * (self.slide_projection(features) * embedding).sum(dim=1)
            return score / math.sqrt(self.embed_dim)

    @overload
    def forward(
        self,
        img: torch.Tensor,
        label: torch.Tensor,
        x: torch.Tensor | None = None,
        slide: torch.Tensor | None = None,
        *,
        return_embedding: Literal[False] = False,
    ) -> torch.Tensor: ...

    @overload
    def forward(
        self,
        img: torch.Tensor,
        label: torch.Tensor,
        x: torch.Tensor | None = None,
        slide: torch.Tensor | None = None,
        *,
        return_embedding: Literal[True],
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def forward(
        self,
        img: torch.Tensor,
        label: torch.Tensor,
        x: torch.Tensor | None = None,
        slide: torch.Tensor | None = None,
        *,
        return_embedding: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Score images.

        Parameters
        ----------
        img
            Images (B, c, R, R), about within [-1, 1].
        label
            Label codes, integers (B,), or weights of the labels, floats (B, n_labels).
        x
            Counts (B, p); needed for ``conditioning="expression"``.
        slide
            Slide codes (B,), -1 where the slide is none of the training's: it adds nothing to the score (``None``: of no cell).
        return_embedding
            Also return the images' embedding (B, embed_dim): the features' map that is projected on the expression's embedding
            (on the label's if ``conditioning="label"``), for the InfoNCE loss.

        Returns
        -------
        Logits (B,), and the embedding if asked for.
        """
        features = self.image_features(img)
        logits = self.score(features, label, x, slide)
        return (logits, self.image_embedding(features)) if return_embedding else logits
