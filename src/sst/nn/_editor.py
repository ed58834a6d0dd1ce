"""The editor: a real cell, its expression and another one in, the same cell under the other expression out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sst._validate import check_choice, check_range
from sst.nn.ops import activate, conv3x3

from ._body import REACH, find_body
from ._layers import SLOPE, ExpressionTransform
from ._precision import ComputeDtype, compute_dtype, full_precision
from ._traits import OUTSIDE, TRAITS, blur, contrast, core_level, inner, places, traits, window

SIZES = (16, 32, 64, 128, 256)
GROUPS = 8  # of channels, that are normalised together
GAIN_LIMIT = 2.0  # stains change by at most e^2
FLOWS = 2  # coarsest sizes that make a flow
DARKEST = 0.005  # share of the pixels that are no brighter than without any stain
STEP, TRIED = 0.1, 64  # of the logarithms that are tried on real crops; crops at a time
SCALE_LIMIT = 0.7  # bodies change by at most e^0.7 in size
SHARPER = 1.5  # log gain of the detail of what is enlarged, per log of the factor: what is read farther apart is softer
START = 0.001  # standard deviation of the last kernels: an untrained editor adds next to nothing


class _Conv(nn.Module):
    """3x3 convolution of maps (B, H, W, C); ``down``: to half the size."""

    def __init__(self, in_channels: int, out_channels: int, *, down: bool = False, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(9 * in_channels)
        self.down = down
        self.weight = nn.Parameter(torch.empty(out_channels, 3, 3, in_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, and with a bias leaky ReLU."""
        y = conv3x3(x, self.weight, down=self.down)
        return y if self.bias is None else activate(y, self.bias)


class _Modulation(nn.Module):
    """Group norm without parameters, then a scale and a shift a channel that a code sets; leaky ReLU."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.groups = math.gcd(channels, GROUPS)
        self.affine = nn.Linear(code_dim, 2 * channels)
        nn.init.normal_(self.affine.weight, std=0.02)

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        """Maps (B, H, W, C), code (B, code_dim)."""
        scale, shift = self.affine(code).chunk(2, dim=1)
        pixels = x.to(code.dtype).flatten(1, 2)
        mean = pixels.mean(dim=1)  # of channels, B x C
        apart = pixels - mean[:, None]
        variance = (apart * apart).mean(dim=1)  # on a CPU ``var_mean`` over pixels takes fifteen times as long
        b, c = mean.shape
        means = mean.view(b, self.groups, -1)
        middle = means.mean(dim=2, keepdim=True)
        spread = variance.view_as(means).mean(dim=2, keepdim=True) + (means - middle).square().mean(dim=2, keepdim=True)
        factor = (1 + scale) * (spread + 1e-5).rsqrt().expand_as(means).reshape(b, c)
        shift = shift - middle.expand_as(means).reshape(b, c) * factor
        y = torch.addcmul(shift.to(x.dtype)[:, None, None], x, factor.to(x.dtype)[:, None, None])
        return F.leaky_relu(y, SLOPE)


class _Block(nn.Module):
    """Residual block of two modulated convolutions."""

    def __init__(self, channels: int, code_dim: int) -> None:
        super().__init__()
        self.modulations = nn.ModuleList(_Modulation(channels, code_dim) for _ in range(2))
        self.convs = nn.ModuleList(_Conv(channels, channels, bias=False) for _ in range(2))

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        y = x
        for modulate, conv in zip(self.modulations, self.convs, strict=True):
            y = conv(modulate(y, code))
        return torch.add(x, y, alpha=0.5)


class _Head(nn.Module):
    """What an edit does at each place: linear in ``u`` and without bias, so that no edit does nothing.

    Maps of side ``size`` are enlarged to ``resolution`` (bicubic interpolation, as a product with a matrix on both sides).
    """

    rows: torch.Tensor

    def __init__(self, channels: int, outputs: int, code_dim: int, size: int, resolution: int) -> None:
        super().__init__()
        self.gate = nn.Linear(code_dim, channels, bias=False)
        self.weight = nn.Parameter(torch.randn(outputs, 3, 3, channels) * START)
        unit = torch.eye(size).view(1, size, size, 1).expand(1, size, size, 4)
        rows = F.interpolate(unit, size=(resolution, 4), mode="bicubic", align_corners=False)[0, :, :, 0].t()
        self.register_buffer("rows", rows.contiguous(), persistent=False)

    def forward(self, x: torch.Tensor, u: torch.Tensor, *, enlarge: bool = True) -> torch.Tensor:
        """Maps (B, H, W, C) and edit (B, code_dim) -> (B, outputs, R, R) in the precision of ``u``."""
        y = conv3x3(x * self.gate(u).to(x.dtype)[:, None, None], self.weight).permute(0, 3, 1, 2).to(u.dtype)
        return self.rows @ y @ self.rows.t() if enlarge else y


@dataclass(frozen=True)
class Effects:
    """What an edit does, each linear in u; see :class:`CellEditor`.

    Attributes
    ----------
    whole
        What the regression asks of each channel, (B, levers, c), logarithms: its gain; of the body at the centre the factors by which it is enlarged, made longer and
        narrower, and of its contrast; of an editor that hears the neighbours apart also the gain of what is not theirs.
    flow
        Where each channel reads besides, (B, c, 2, R, R).
    gain
        Log gain of each pixel besides, (B, c, R, R).
    detail
        Log gain of what is finer than a tenth of the side, (B, c, R, R).
    residual
        (B, c, R, R), in [-1, 1].
    """

    whole: torch.Tensor
    flow: torch.Tensor
    gain: torch.Tensor
    detail: torch.Tensor
    residual: torch.Tensor

    @classmethod
    def of_whole(cls, whole: torch.Tensor, resolution: int) -> Effects:
        """Nothing besides ``whole``, (B, levers, c)."""
        b, _, c = whole.shape
        none = whole.new_zeros(b, c, resolution, resolution)
        return cls(whole, none[:, :, None].expand(-1, -1, 2, -1, -1), none, none, none)

    def effort(self) -> torch.Tensor:
        """Mean of all that the regression does not ask for: 32nds of the side of motion, quarters of a log gain, and residuals in tenths of half the range."""
        local = 4 * self.gain.abs().mean() + self.detail.abs().mean() + 10 * self.residual.abs().mean()
        return self.flow.abs().mean() * 16 + local


class CellEditor(nn.Module):
    r"""Turns this cell: its real crop under another expression.

    Parameters
    ----------
    n_genes
        Number of genes p.
    img_channels
        Image channels c.
    resolution
        Side R of the images in pixels: 16, 32, 64, 128 or 256.
    width, width_max
        Feature maps at half the side, the finest there are; doubled at each halving, up to the largest.
    code_dim
        Width of the code m of a pair of expressions.
    blocks
        Residual blocks at the coarsest size (one at every other).
    flow_size
        Side of the coarsest maps.
    around
        Hear also what acts on the surroundings of the cell: for expression that holds the neighbours' counts by themselves.

    Notes
    -----
    Genes are heard through what a sparse regression of smooth traits of real crops (:func:`traits`) on expression makes of them: those that it does not
    find to act do nothing. A small network codes that of the cell's expression and of the change asked for, m(g, g'). A U-Net of the image, whose blocks m scales and shifts, has heads that are
    *linear and without bias* in :math:`u = m(g, g') - m(g, g)`: a flow, for each channel its own; the log of a gain at each pixel, and of one for the finest
    detail; a residual. Beside them stands what the regression asks for: the log gain of each channel, and of the body at the
    centre (:func:`find_body`) size, elongation and contrast (:meth:`calibrate`). In intensities from 0 to 1

    .. math:: y = \left(v_{low} + (v - v_{low}) \, e^{\mathrm{detail}}\right) e^{\mathrm{gain}} + \mathrm{residual}, \quad v = \mathrm{contrast}(\mathrm{warp}(x)),

    so that outlines move, stains are multiplied, texture grows or fades, and the rest is added. With g' = g the image comes out as it went
    in, bit for bit. An untrained editor is the regression's morph.
    """

    response: torch.Tensor
    spread: torch.Tensor
    weights: torch.Tensor
    floor: torch.Tensor
    levers: torch.Tensor

    def __init__(
        self,
        n_genes: int,
        *,
        img_channels: int,
        resolution: int = 128,
        width: int = 32,
        width_max: int = 64,
        code_dim: int = 64,
        blocks: int = 2,
        flow_size: int = 8,
        around: bool = False,
    ) -> None:
        super().__init__()
        check_choice("resolution", resolution, SIZES)
        check_choice("flow_size", flow_size, [s for s in (4, 8, 16, 32) if s <= resolution // 2])
        for name, value in (("width", width), ("width_max", width_max), ("code_dim", code_dim), ("blocks", blocks)):
            check_range(name, value, low=1)
        self.n_genes, self.img_channels, self.resolution = n_genes, img_channels, resolution
        self.compute_dtype: ComputeDtype = "auto"
        self.transform = ExpressionTransform(n_genes)
        self.around = around
        known = img_channels * (len(TRAITS) + around)
        self.register_buffer("response", torch.zeros(n_genes, known))
        self.register_buffer("spread", torch.ones(known))
        self.register_buffer("weights", torch.zeros(known))
        self.register_buffer("floor", torch.zeros(img_channels))
        self.register_buffer("levers", torch.zeros(known, 4 + around, img_channels))
        self.network = nn.Sequential(
            nn.Linear(2 * known, code_dim),
            nn.LeakyReLU(SLOPE),
            nn.Linear(code_dim, code_dim),
            nn.LeakyReLU(SLOPE),
        )
        code, half = code_dim + known, resolution // 2
        halvings = int(math.log2(half // flow_size))
        widths = [min(width * 2**level, max(width, width_max)) for level in range(halvings + 1)]  # fine to coarse
        self.from_image = _Conv(4 * img_channels, widths[0])
        self.down = nn.ModuleList(_Conv(i, o, down=True) for i, o in zip(widths[:-1], widths[1:], strict=True))
        self.bottom = nn.ModuleList(_Block(widths[-1], code) for _ in range(blocks))
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]  # coarse to fine
        self.up = nn.ModuleList(_Conv(coarse + fine, fine) for coarse, fine in pairs)
        self.blocks = nn.ModuleList(_Block(fine, code) for _, fine in pairs)
        self.flows = nn.ModuleList(
            _Head(channels, 2 * img_channels, code, flow_size << level, resolution)
            for level, channels in enumerate(widths[: -FLOWS - 1 : -1])
        )
        self.gain, self.detail = (_Head(widths[0], img_channels, code, half, resolution) for _ in range(2))
        self.residual = _Head(widths[0], 4 * img_channels, code, half, resolution)

    def set_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Set per-gene mean and standard deviation of log(1 + counts), (p,) each."""
        self.transform.set_statistics(mean, std)

    def set_range(self, low: torch.Tensor, high: torch.Tensor) -> None:
        """Set the range of counts seen in training, (p,) each; see :meth:`ExpressionTransform.set_range`."""
        self.transform.set_range(low, high)

    def set_response(self, response: torch.Tensor, spread: torch.Tensor, weights: torch.Tensor) -> None:
        """Set what genes do to traits of real crops: see :func:`sst.train.fit_response`."""
        for name, value in (("response", response), ("spread", spread), ("weights", weights)):
            getattr(self, name).copy_(value)

    def expected(self, own: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Change of the traits that the regression expects of an edit, (B, traits), in units of their standard deviations."""
        return (self.transform(target) - self.transform(own)) @ self.response

    def codes(self, own: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """m(g, g'), u = m(g, g') - m(g, g), (B, code_dim + traits) each, and whether the network sees any change, (B,)."""
        own, target = self.transform(own), self.transform(target)
        before, known = own @ self.response, (target - own) @ self.response
        code = self.network(torch.cat([before, known], dim=1))
        still = self.network(torch.cat([before, torch.zeros_like(known)], dim=1))
        return torch.cat([code, known], dim=1), torch.cat([code - still, known], dim=1), (known != 0).any(dim=1)

    def forward(self, images: torch.Tensor, own: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Edit cells.

        Parameters
        ----------
        images
            Real crops (B, c, R, R) in [-1, 1].
        own, target
            Counts (B, p) of the cells, and those they are to have.

        Returns
        -------
        Images (B, c, R, R), about within [-1, 1].
        """
        return self.explain(images, own, target)[0]

    def explain(self, images: torch.Tensor, own: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, Effects]:
        """The edited images, as :meth:`forward` gives them, and what was done to the cells."""
        expected = (self.img_channels, self.resolution, self.resolution)
        if images.ndim != 4 or images.shape[1:] != expected:
            msg = f"images have shape {tuple(images.shape)}; expected (cells, {', '.join(map(str, expected))})."
            raise ValueError(msg)
        dtype = compute_dtype(self.compute_dtype, self.from_image.weight)
        with full_precision(images.device):
            code, u, changed = self.codes(own, target)
            images = images.to(code.dtype)
            effects = self.effects(images, code, u, dtype)
            edited = self.drawn((images + 1) / 2, effects) * 2 - 1
            still = images + (edited - edited.detach())  # as it is; what a first change would do stays in the gradient
            return torch.where(changed[:, None, None, None], edited, still), effects

    def drawn(self, images: torch.Tensor, effects: Effects) -> torch.Tensor:
        """Crops (B, c, R, R), from 0 to 1, after all that is done to them."""
        centred = self.centred[:, None, None]
        body = find_body(images, self.centred)
        gain, zoom, stretch, rougher, *own = effects.whole.unbind(dim=1)
        zoom, stretch = (v.clamp(-SCALE_LIMIT, SCALE_LIMIT) for v in (zoom, stretch))
        moved = warp(images, effects.flow + body.flow(zoom, stretch))
        with torch.no_grad():
            inside = inner(moved, core_level(moved)) * centred
        middle = contrast(moved, inside)[0][..., None, None]
        moved = moved + (moved - middle) * inside * (_bounded(rougher)[..., None, None] - 1)
        smooth, enlarged = blur(moved), zoom[..., None, None] * body.near(REACH, zoom) * centred
        moved = smooth + (moved - smooth) * _bounded(effects.detail + SHARPER * enlarged)
        floor, every = self.floor[:, None, None], effects.gain + gain[..., None, None]
        if own:
            every = every + own[0][..., None, None] * window(images, OUTSIDE)
        return floor + (moved - floor) * _bounded(every) + effects.residual / 2

    def effects(self, images: torch.Tensor, code: torch.Tensor, u: torch.Tensor, dtype: torch.dtype) -> Effects:
        """What the codes do to these images, from feature maps of a dtype."""
        x = F.pixel_unshuffle(images, 2).permute(0, 2, 3, 1)
        seen = [self.from_image(x.contiguous().to(dtype))]
        for conv in self.down:
            seen.append(conv(seen[-1]))
        x = seen.pop()
        for block in self.bottom:
            x = block(x, code)
        maps = [x]  # coarse to fine
        for conv, block in zip(self.up, self.blocks, strict=True):
            maps.append(block(conv(torch.cat([_twice(maps[-1]), seen.pop()], dim=3)), code))
        flow = sum(head(x, u) for head, x in zip(self.flows, maps, strict=False))
        known = u[:, -len(self.spread) :]
        return Effects(
            flow=flow.view(len(images), self.img_channels, 2, *images.shape[2:]),
            whole=torch.einsum("bt,tkc->bkc", known, self.levers),
            gain=self.gain(maps[-1], u),
            detail=self.detail(maps[-1], u),
            residual=F.pixel_shuffle(self.residual(maps[-1], u, enlarge=False), 2),
        )

    @property
    def centred(self) -> torch.Tensor:
        """Stains that are brightest in the core, mostly, (c,)."""
        return self.weights.view(-1, self.img_channels)[TRAITS.index("wide")] >= 0.5

    @torch.no_grad()
    def calibrate(self, images: torch.Tensor) -> None:
        """Find how bright no stain is, and which gains, size, elongation and contrasts change the traits as the regression expects.

        Each of them is tried on real crops; a change of the traits is what they do together (least squares, traits weighted as in the loss). Size and
        elongation are the body's, so the same in all channels, and contrast is that of stains that show it; where none does, brightness alone is changed.

        Parameters
        ----------
        images
            Some hundred real crops (n, c, R, R), from 0 to 1.
        """
        values = blur(images).transpose(0, 1).flatten(1).sort(dim=1).values
        self.floor.copy_(values[:, int(values.shape[1] * DARKEST)])
        found = []
        for name, columns in self._levers():
            asked = images.new_zeros(1, *self.levers.shape[1:])
            asked[:, name, columns] = STEP
            more, less = (self._mean_traits(images, whole) for whole in (asked, -asked))
            found.append((more - less) / (2 * STEP) / self.spread)
        slopes = torch.stack(found, dim=1).double()  # traits x levers
        weighted = slopes * self.weights[:, None]
        inverse = torch.linalg.solve(slopes.T @ weighted + 1e-3 * torch.eye(len(found)).to(slopes), weighted.T)
        self.levers.zero_()
        for (name, columns), row in zip(self._levers(), inverse.float(), strict=True):
            self.levers[:, name, columns] = row[:, None]

    def _mean_traits(self, images: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """Mean traits of crops after ``whole``, (1, levers, c), of each of them."""
        found = []
        for some in images.split(TRIED):
            effects = Effects.of_whole(whole.expand(len(some), -1, -1), self.resolution)
            found.append(traits(self.drawn(some, effects), around=self.around))
        return torch.cat(found).mean(dim=0)

    def _levers(self) -> list[tuple[int, list[int]]]:
        """Rows (gain, zoom, stretch, contrast, gain of what is not the neighbours') and channels that move together."""
        every, centred = list(range(self.img_channels)), self.centred.nonzero().flatten().tolist()
        shape = [(1, every), (2, every)] if centred else []  # of what no stain shows nothing is known
        own = [(4, [k]) for k in every] if self.around else []
        return [(0, [k]) for k in every] + shape + [(3, [k]) for k in centred] + own


def _bounded(logarithm: torch.Tensor) -> torch.Tensor:
    return logarithm.clamp(-GAIN_LIMIT, GAIN_LIMIT).exp()


def _twice(x: torch.Tensor) -> torch.Tensor:
    """Each pixel of (B, H, W, C) as four."""
    b, h, w, c = x.shape
    wide = torch.cat([x, x], dim=3).view(
        b, h, 1, 2 * w * c
    )  # its gradient is a sum of halves: a fifth of an expanded view's time
    return torch.cat([wide, wide], dim=2).view(b, 2 * h, 2 * w, c)


def warp(images: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Read images (B, c, h, w) at other places, bicubically; beyond the edge the image is reflected.

    Parameters
    ----------
    images
        (B, c, h, w).
    flow
        How far each place reads from itself, (B, c, 2, h, w): right and down, 2 is the whole side.
    """
    b, c, h, w = images.shape
    to = (torch.stack(places(images)) + flow).flatten(0, 1).permute(0, 2, 3, 1)
    read = F.grid_sample(
        images.reshape(b * c, 1, h, w), to, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return read.view(b, c, h, w)
