"""Every fast operator equals the plain one in float64: output, first and second gradients, over shapes and forms."""

from __future__ import annotations

import platform

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sst.nn.ops import _choice, _conv, _fir, _modulated, _product, _taps, _winograd, activate
from sst.train import keep_freed_memory

TOLERANCE = {"rtol": 1e-8, "atol": 1e-8}
few = settings(max_examples=20, deadline=None, derandomize=True)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=g).requires_grad_()


def derivatives(call, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output, the gradients of a nonlinear loss, and the gradients of a nonlinear function of those."""
    out = call(*inputs)
    probe = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).sin().view(out.shape)
    first = torch.autograd.grad((out * probe + out.sin()).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(f.cos().sum() + f.square().sum() for f in first), inputs, allow_unused=True)
    return [out, *first, *(torch.zeros_like(i) if s is None else s for i, s in zip(inputs, second, strict=True))]


def check_equal(fast, plain, inputs: list[torch.Tensor]) -> None:
    for a, b in zip(derivatives(fast, inputs), derivatives(plain, inputs), strict=True):
        scale = b.detach().abs().max().clamp_min(1)
        torch.testing.assert_close(a / scale, b / scale, **TOLERANCE)


def nhwc(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


def nchw(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


sizes = st.sampled_from([2, 4, 6, 8])
channels = st.integers(1, 20)


@few
@given(
    st.integers(1, 3),
    sizes,
    sizes,
    channels,
    channels,
    st.sampled_from(["columns", "cell kernels", "up", "up, columns kept"]),
)
def test_modulated_conv(b: int, h: int, w: int, i: int, o: int, form: str) -> None:
    up = form.startswith("up")
    weight = draw(3, 3, o, i) if up else draw(o, 3, 3, i)
    inputs = [draw(b, h, w, i), weight, draw(b, i), draw(b, 3, 3)]

    def plain(x, weight, style, taps):
        weight = weight.permute(2, 0, 1, 3) if up else weight
        return 1.5 * nhwc(reference.modulated_conv(nchw(x), weight, style, taps, up=up))

    def fast(x, weight, style, taps):
        return _modulated.modulated_conv(x, weight, style, taps, up=up, gain=1.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_modulated, "choose_form", lambda *_, **__: "up" if up else form)
        patch.setattr(_modulated, "keep_columns", lambda *_: form != "up")
        check_equal(fast, plain, inputs)


@few
@given(st.integers(1, 3), sizes, sizes, channels, channels)
def test_first_gradients_without_kept_columns(b: int, h: int, w: int, i: int, o: int) -> None:
    """Those that no graph is made of take a way of their own."""
    inputs = [draw(b, h, w, i), draw(9 * o, i), draw(b, 9, o)]
    plain, spread = _modulated._spread(*inputs), _modulated._Spread.apply(*inputs)
    probe = draw(*plain.shape).detach()
    for a, e in zip(torch.autograd.grad(spread, inputs, probe), torch.autograd.grad(plain, inputs, probe), strict=True):
        torch.testing.assert_close(a, e, **TOLERANCE)
    frozen = [inputs[0], inputs[1].detach(), inputs[2]]
    check_equal(
        lambda x, e: _modulated._Spread.apply(x, frozen[1], e),
        lambda x, e: _modulated._spread(x, frozen[1], e),
        frozen[::2],
    )


def test_forms_are_chosen_by_shape() -> None:
    assert _choice.choose_form(16, 16, 512, 512, up=False) == "columns"
    assert _choice.choose_form(128, 128, 256, 256, up=False) == "cell kernels"
    assert _choice.choose_form(64, 64, 512, 256, up=True) == "up"
    assert _choice.keep_columns(2, 64, 64, 256)
    assert not _choice.keep_columns(16, 64, 64, 256)


@few
@given(st.integers(1, 3), sizes, sizes, channels, st.integers(1, 3))
def test_to_image(b: int, h: int, w: int, i: int, c: int) -> None:
    def plain(x, weight, style, taps):
        return reference.modulated_conv(nchw(x), weight.permute(2, 0, 1, 3), style, taps, demodulate=False)

    check_equal(_modulated.to_image, plain, [draw(b, h, w, i), draw(3, 3, c, i), draw(b, i), draw(b, 3, 3)])


@few
@given(st.integers(1, 3), sizes, sizes, channels, channels, st.booleans())
def test_conv3x3(b: int, h: int, w: int, i: int, o: int, down: bool) -> None:
    def plain(x, weight):
        return nhwc(reference.conv3x3(nchw(x), weight, down=down))

    inputs = [draw(b, h, w, i), draw(o, 3, 3, i)]
    check_equal(lambda x, weight: _modulated.conv3x3(x, weight, down=down), plain, inputs)


@pytest.mark.parametrize("routine", ["columns", "library"])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_by_either_routine(monkeypatch: pytest.MonkeyPatch, routine: str, stride: int) -> None:
    monkeypatch.setattr(_conv, "choose_routine", lambda *_, **__: routine)
    at = _taps.Geometry(9, 7, stride, stride % 2)

    def plain(x, weight):
        return nhwc(torch.nn.functional.conv2d(nchw(x), nchw(weight), stride=stride, padding=stride % 2))

    check_equal(lambda x, weight: _conv.conv(x, weight, at), plain, [draw(2, 9, 7, 5), draw(3, 3, 3, 5)])


@few
@given(st.integers(1, 3), st.integers(1, 11), st.integers(1, 11), channels, channels, st.booleans())
def test_conv_by_winograd(b: int, h: int, w: int, i: int, o: int, per_cell: bool) -> None:
    """Any size, tiles that hang over the edge included, shared or with a kernel a cell."""
    at = _taps.Geometry(h, w, 1, 1)

    def plain(x, weight):
        if per_cell:
            maps = zip(nchw(x).split(1), weight, strict=True)
            return nhwc(torch.cat([torch.nn.functional.conv2d(one, nchw(kernel), padding=1) for one, kernel in maps]))
        return nhwc(torch.nn.functional.conv2d(nchw(x), nchw(weight), padding=1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_conv, "choose_routine", lambda *_, **__: "winograd")
        patch.setattr(_winograd, "CHUNK", 4)  # several chunks
        weight = draw(b, o, 3, 3, i) if per_cell else draw(o, 3, 3, i)
        check_equal(lambda x, weight: _conv.conv(x, weight, at), plain, [draw(b, h, w, i), weight])


def test_winograd_in_float32() -> None:
    """The rounding error stays near that of the direct sum."""
    x, w, y = torch.randn(1, 32, 32, 128), torch.randn(128, 3, 3, 128), torch.randn(1, 32, 32, 128)
    at = _taps.Geometry(32, 32, 1, 1)
    assert _choice.choose_routine(x, at, 128, 128, 1, weight_gradient=False) == "winograd"
    double = (t.double() for t in (x, w, y))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_conv, "choose_routine", lambda *_, **__: "library")
        x8, w8, y8 = double
        exact = [_conv.conv_(x8, w8, at), _conv.conv_input_(y8, w8, at)]
        exact.append(_conv.conv_weight_(x8, y8, at, per_cell=False))
    found = [_conv.conv_(x, w, at), _conv.conv_input_(y, w, at)]
    found.append(_conv.conv_weight_(x, y, at, per_cell=False))
    for a, b in zip(found, exact, strict=True):
        assert float((a.double() - b).norm() / b.norm()) < 2e-5


def test_routines_are_chosen_by_shape() -> None:
    def choose(size: int, channels: int, *, dtype=torch.float32, stride: int = 1, cells: int = 1, weight: bool = False):
        at = _taps.Geometry(size, size, stride, 2 - stride)
        x = torch.empty(0, dtype=dtype)
        return _choice.choose_routine(x, at, channels, channels, cells, weight_gradient=weight)

    assert choose(64, 512) == "winograd"
    assert choose(16, 512) == "library"
    assert choose(16, 512, cells=4) == "winograd"
    assert choose(64, 64) == choose(64, 512, dtype=torch.bfloat16) == choose(65, 512, stride=2) == "library"
    assert choose(4, 512) == choose(16, 512, weight=True) == choose(65, 512, stride=2, weight=True) == "columns"


def test_conv_with_a_kernel_a_cell_in_one_grouped_call() -> None:
    """The form that devices other than the CPU take."""
    at = _taps.Geometry(6, 5, 1, 1)
    x, w, y = (t.detach() for t in (draw(3, 6, 5, 4), draw(3, 2, 3, 3, 4), draw(3, 6, 5, 2)))
    per_cell = [_conv.conv_(x, w, at), _conv.conv_input_(y, w, at)]
    per_cell.append(_conv.conv_weight_(x, y, at, per_cell=True))
    grouped = [_conv.grouped_conv_(x, w, at), _conv.grouped_conv_input_(y, w, at)]
    grouped.append(_conv.grouped_conv_weight_(x, y, at))
    for a, b in zip(grouped, per_cell, strict=True):
        torch.testing.assert_close(a, b, **TOLERANCE)


@few
@given(st.integers(1, 3), sizes, channels, st.sampled_from(["widen", "narrow", "halve", "double"]))
def test_resample(b: int, size: int, c: int, kind: str) -> None:
    plain = {
        "widen": lambda x: reference.fir(x, (2, 2), 3.0),
        "narrow": lambda x: reference.fir(x, (1, 1), 3.0),
        "halve": lambda x: reference.downsample(x) * 3,
        "double": lambda x: reference.upsample(x) * 0.75,
    }[kind]
    x = draw(b, size, size + 2, c)
    check_equal(lambda x: _fir.resample(x, kind, 3.0), lambda x: nhwc(plain(nchw(x))), [x])
    if kind == "double":
        planes = draw(b, 2, size, size + 2)
        check_equal(_fir.double_planes, reference.upsample, [planes])


@few
@given(st.integers(1, 3), sizes, channels, st.booleans())
def test_activate(b: int, size: int, c: int, noisy: bool) -> None:
    inputs = [draw(b, size, size, c), draw(c), *([draw(b, size, size, 1)] if noisy else [])]

    def plain(x, bias, noise=0.0):
        return torch.nn.functional.leaky_relu(x + bias + noise, 0.2)

    check_equal(activate, plain, inputs)


@few
@given(st.integers(1, 3), sizes, channels, st.sampled_from([(1, 1), (2, 0)]), st.booleans())
def test_taps(b: int, size: int, c: int, how: tuple[int, int], weighted: bool) -> None:
    stride, pad = how
    at = _taps.Geometry(2 * size + 1, 2 * size + 3, stride, pad)
    h, w = at.out
    x, z = draw(b, at.height, at.width, c), draw(b, h, w, 9, c)
    e = draw(b, 9, c) if weighted else None

    def windows(x):
        x = torch.nn.functional.pad(x, (0, 0, pad, pad, pad, pad))
        ys, xs = range(0, stride * h, stride), range(0, stride * w, stride)
        rows = [torch.stack([x[:, y : y + 3, q : q + 3].flatten(1, 2) for q in xs], 1) for y in ys]
        return torch.stack(rows, 1)  # (B, H, W, 9, C)

    def im2col(x, *e):
        return windows(x) * (e[0][:, None, None] if e else 1)

    def dot(x, z):
        return (windows(x) * z).sum(dim=(1, 2))

    def col2im(z, *e):
        probe = torch.zeros(b, at.height, at.width, c, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad((im2col(probe, *e) * z).sum(), probe, create_graph=True)[0]

    more = [e] if weighted else []
    check_equal(lambda x, *e: _taps.im2col(x, e[0] if e else None, at), im2col, [x, *more])
    check_equal(lambda z, *e: _taps.col2im(z, e[0] if e else None, at), col2im, [z, *more])
    check_equal(lambda x, z: _taps.dot(x, z, at), dot, [x, z])


def test_resampling_twice_compiles_as_one_graph() -> None:
    """Each filter is made in the graph: named constants of one name would be refused by newer compilers."""

    def both(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return _fir.double_planes(_fir.double_planes(x)).sum() + _fir.resample(_fir.resample(y, "halve"), "halve").sum()

    x, y = draw(1, 2, 4, 4), draw(1, 8, 8, 2)
    compiled = torch.compile(both, backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(x, y), both(x, y))
    found, expected = (torch.autograd.grad(call(x, y), (x, y)) for call in (compiled, both))
    torch.testing.assert_close(found, expected)
    torch._dynamo.reset()


def test_product() -> None:
    check_equal(_product.linear, torch.nn.functional.linear, [draw(5, 7), draw(3, 7)])
    # the float32 routine, large enough to be taken, in the three layouts that gradients need
    a, b = torch.randn(300, 200), torch.randn(200, 150)
    for left, right in ((a, b), (a, b.t().contiguous().t()), (a.t().contiguous().t(), b)):
        expected = left.double() @ right.double()
        torch.testing.assert_close(_product.matmul(left, right).double(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["columns", "cell kernels", "up"])
def test_low_precision_is_close(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, form: str) -> None:
    monkeypatch.setattr(_modulated, "choose_form", lambda *_, **__: form)
    up = form == "up"
    g = torch.Generator().manual_seed(0)
    weight = torch.randn((3, 3, 24, 16) if up else (24, 3, 3, 16), generator=g, requires_grad=True)
    x, style, taps = (torch.randn(*s, generator=g, requires_grad=True) for s in ((2, 8, 8, 16), (2, 16), (2, 3, 3)))
    inputs = [x, weight, style, taps]
    results = []
    for low in (torch.float32, dtype):
        out = _modulated.modulated_conv(x.to(low), weight, style / 12, taps, up=up)
        assert out.dtype == low
        probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
        results.append([out.float(), *torch.autograd.grad((out.float() * probe).sum(), inputs)])
    for a, b in zip(*results, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert (a - b).norm() / a.norm() < 0.03


def test_memory_is_kept() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
