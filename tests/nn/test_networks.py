"""Generator and discriminator: shapes, sizes, settings, determinism."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import reference
import torch

from sst.nn import Discriminator, ExpressionTransform, Generator, read_beyond

SMALL = {"channel_base": 256, "channel_max": 16}
GENES = 7


def small_generator(**settings) -> Generator:
    torch.manual_seed(0)
    kwargs = {"img_channels": 2, "resolution": 16, "z_dim": 8, "w_dim": 8, "gene_width": 16, **SMALL, **settings}
    return Generator(GENES, **kwargs)


def small_discriminator(**settings) -> Discriminator:
    torch.manual_seed(1)
    kwargs = {"img_channels": 2, "resolution": 16, "n_genes": GENES, "embed_dim": 8, **SMALL, **settings}
    return Discriminator(**kwargs)


def cells(n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return torch.randn(n, 8, generator=g), torch.poisson(torch.full((n, GENES), 3.0), generator=g)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_at_full_size() -> None:
    with torch.device("meta"):
        g = Generator(1000, img_channels=2, gene_inputs=("kernel",), kernel_offset=0, input_transform="counts")
        d = Discriminator(img_channels=2, conditioning="label")
    assert round(count(g) / 1e6, 2) == 30.05
    assert round(count(g.kernel_network) / 1e6, 2) == 0.68
    assert round(count(g.mapping_network) / 1e6, 2) == 2.10
    assert round(count(d) / 1e6, 2) == 28.52
    assert g.num_styles == 12


@pytest.mark.parametrize("resolution", [8, 16, 64])
@pytest.mark.parametrize("channels", [1, 2])
def test_shapes(resolution: int, channels: int) -> None:
    g = small_generator(resolution=resolution, img_channels=channels)
    d = small_discriminator(resolution=resolution, img_channels=channels)
    z, x = cells()
    image = g(z, x)
    assert image.shape == (4, channels, resolution, resolution)
    ws, taps = g.styles(g.mapping(z), x), g.kernels(x)
    assert ws.shape == (4, g.num_styles, 8)
    assert taps.shape == (4, g.num_styles, 3, 3)
    logits, embedding = d(image, torch.tensor([0, 1, 0, 1]), x, return_embedding=True)
    assert logits.shape == (4,)
    assert embedding.shape == (4, 8)
    assert d.expression_embedding(x).shape == (4, 8)


def test_starts_sane() -> None:
    torch.manual_seed(3)
    g = Generator(30, img_channels=2, resolution=32, channel_base=2048, channel_max=64)
    d = Discriminator(img_channels=2, resolution=32, channel_base=2048, channel_max=64, n_genes=30)
    x = torch.poisson(torch.full((64, 30), 4.0))
    for module in (g, d):
        module.set_statistics(x.log1p().mean(0), x.log1p().std(0))
    image = g(torch.randn(64, 512), x)
    assert 0.1 < image.std() < 10
    assert g.styles(g.mapping(torch.randn(64, 512)), x).std() < 5
    assert d(image / image.std(), torch.zeros(64, dtype=torch.long), x).abs().mean() < 20
    torch.testing.assert_close(g.kernels(x), torch.ones(64, g.num_styles, 3, 3))  # identity to begin with


def test_same_noise_same_image() -> None:
    g = small_generator()
    torch.nn.init.ones_(g.convs[0].noise_strength)
    z, x = cells()
    seeds = torch.tensor([5, 6, 7, 8])
    torch.testing.assert_close(g(z, x, noise=seeds), g(z, x, noise=seeds), rtol=0, atol=0)
    torch.testing.assert_close(g(z, x, noise=seeds)[2:], g(z[2:], x[2:], noise=seeds[2:]))  # whatever the batch
    assert not torch.equal(g(z, x, noise="random"), g(z, x, noise="random"))
    given = [torch.ones(1, *s) for s in g.noise_shapes]
    torch.testing.assert_close(g(z, x, noise=given), g(z, x, noise=given), rtol=0, atol=0)
    with pytest.raises(ValueError, match="3 integer seeds|4 integer seeds"):
        g(z, x, noise=torch.rand(4))
    with pytest.raises(ValueError, match="convolutions"):
        g(z, x, noise=given[:2])
    with pytest.raises(ValueError, match="'loud'"):
        g(z, x, noise="loud")


@pytest.mark.parametrize("inputs", [("kernel",), ("style",), ("kernel", "style")])
def test_genes_reach_the_image(inputs: tuple[str, ...]) -> None:
    g = small_generator(gene_inputs=inputs, kernel_offset=0.0 if inputs == ("kernel",) else 1.0)
    z, x = cells()
    edited = x.clone()
    edited[:, 3] += 5
    before, after = g(z, x, noise="none"), g(z, edited, noise="none")
    assert not torch.allclose(before, after)
    # another order of the genes is another input
    assert not torch.allclose(before, g(z, x.flip(1), noise="none"))


def test_each_gene_has_its_own_weights() -> None:
    g = small_generator()
    order = torch.randperm(GENES, generator=torch.Generator().manual_seed(0))
    permuted = copy.deepcopy(g)
    with torch.no_grad():
        for network in (permuted.kernel_network, permuted.style_network):
            network.layers[0].weight.copy_(network.layers[0].weight[:, order])
    z, x = cells()
    torch.testing.assert_close(permuted(z, x[:, order], noise="none"), g(z, x, noise="none"))


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="resolution=100"):
        small_generator(resolution=100)
    with pytest.raises(ValueError, match="gene_inputs='styles'"):
        small_generator(gene_inputs=("styles",))
    with pytest.raises(ValueError, match="gene_inputs is empty"):
        small_generator(gene_inputs=())
    with pytest.raises(ValueError, match="input_transform='log'"):
        small_generator(input_transform="log")
    with pytest.raises(ValueError, match="conditioning='both'"):
        small_discriminator(conditioning="both")
    with pytest.raises(ValueError, match="needs n_genes"):
        small_discriminator(n_genes=None)
    d = small_discriminator()
    image = torch.zeros(2, 2, 16, 16)
    with pytest.raises(ValueError, match="needs the expression"):
        d(image, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="expected \\(cells, 2, 16, 16\\)"):
        d(image[:, :1], torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="7 genes"):
        d.expression_embedding(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="does not embed expression"):
        small_discriminator(conditioning="label").expression_embedding(torch.zeros(2, GENES))


def test_transform() -> None:
    x = torch.tensor([[0.0, 3.0, -0.5]])
    counts = ExpressionTransform(3, "counts")
    torch.testing.assert_close(counts(x), x)
    logged = ExpressionTransform(3, "log1p")
    logged.set_statistics(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0, 2.0, 0.0]))
    expected = torch.tensor([[0.0, (torch.tensor(4.0).log() - 1) / 2, 0.0]])
    torch.testing.assert_close(logged(x), expected)
    logged.set_range(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([2.0, 2.0, 5.0]))
    ends = torch.tensor([[0.0, (torch.tensor(3.0).log() - 1) / 2, 0.0]])
    torch.testing.assert_close(logged(torch.tensor([[0.0, 99.0, -0.5]])), ends)
    with pytest.raises(ValueError, match="3 ranges"):
        logged.set_range(torch.ones(3), torch.zeros(3))
    kept = ExpressionTransform(3, "log1p", "keep")
    torch.testing.assert_close(kept(x)[0, 2], -torch.tensor(1.5).log())
    with pytest.raises(ValueError, match="3 finite values"):
        logged.set_statistics(torch.zeros(2), torch.ones(3))


def test_label_discriminator_ignores_expression() -> None:
    d = small_discriminator(conditioning="label", n_genes=None)
    image = torch.randn(4, 2, 16, 16)
    labels = torch.tensor([0, 1, 0, 1])
    score = d(image, labels)
    torch.testing.assert_close(score, d(image, torch.nn.functional.one_hot(labels).float()))
    assert not torch.allclose(score, d(image, 1 - labels))


def test_expression_discriminator_sees_both() -> None:
    d = small_discriminator()
    image, (_, x) = torch.randn(4, 2, 16, 16), cells()
    labels = torch.tensor([0, 1, 0, 1])
    score = d(image, labels, x)
    assert not torch.allclose(score, d(image, 1 - labels, x))
    assert not torch.allclose(score, d(image, labels, x.flip(0)))


def test_can_be_averaged_and_restored() -> None:
    g = small_generator()
    ema = copy.deepcopy(g).eval().requires_grad_(False)
    for averaged, current in zip(ema.parameters(), g.parameters(), strict=True):
        averaged.lerp_(current, 0.5)
    z, x = cells()
    torch.testing.assert_close(ema(z, x, noise="none"), g(z, x, noise="none"))
    assert all(p.is_contiguous() for p in g.state_dict().values())  # safetensors wants it
    other = small_generator()
    other.load_state_dict(g.state_dict())
    torch.testing.assert_close(other(z, x, noise="none"), g(z, x, noise="none"))


def test_second_gradients_exist() -> None:
    g, d = small_generator(), small_discriminator()
    z, x = cells()
    image = g(z, x).detach().requires_grad_()
    (grad,) = torch.autograd.grad(d(image, torch.zeros(4).long(), x).sum(), image, create_graph=True)
    grad.square().sum().backward()
    assert d.blocks[0].conv0.weight.grad.abs().sum() > 0
    ws = g.styles(g.mapping(z), x)
    (grad,) = torch.autograd.grad((g.synthesis(ws, g.kernels(x)) * image).sum(), ws, create_graph=True)
    grad.square().sum().backward()
    assert g.convs[1].weight.grad.abs().sum() > 0
    assert g.kernel_network.layers[-1].weight.grad.abs().sum() > 0


def noises(g: Generator, n: int) -> list[torch.Tensor]:
    return [torch.randn(n, *s, dtype=g.const.dtype) for s in g.noise_shapes]


@pytest.mark.parametrize("resolution", [8, 32])
@pytest.mark.parametrize("paper", [True, False])
def test_networks_equal_the_plain_ones(resolution: int, *, paper: bool) -> None:
    """Outputs, the gradients of a step, and those of R1 and of the path length, in float64."""
    settings = {"gene_inputs": ("kernel",), "kernel_offset": 0.0, "input_transform": "counts"} if paper else {}
    g = small_generator(resolution=resolution, **settings).double()
    d = small_discriminator(resolution=resolution, conditioning="label" if paper else "expression").double()
    with torch.no_grad():
        for p in (*g.parameters(), *d.parameters()):
            p += 0.1 * torch.randn_like(p)
    plain_g, plain_d = reference.PlainGenerator(g), reference.PlainDiscriminator(d)
    z, x = (t.double() for t in cells())
    noise, labels = noises(g, 4), torch.tensor([0, 1, 1, 0])
    results = []
    for generator, discriminator in ((g, d), (plain_g, plain_d)):
        image = generator(z, x, noise=noise)
        score = discriminator(image, labels, x)
        score.sigmoid().sum().backward()
        real = image.detach().clone().requires_grad_()
        (grad,) = torch.autograd.grad(discriminator(real, labels, x).sum(), real, create_graph=True)
        grad.square().sum().backward()
        ws = (styles := getattr(generator, "network", generator)).styles(styles.mapping(z), x)
        drawn = generator.synthesis(ws, styles.kernels(x), noise=noise)
        (path,) = torch.autograd.grad((drawn * image.detach().cos()).sum(), ws, create_graph=True)
        path.square().sum(dim=(1, 2)).sqrt().var().backward()
        grads = [
            m.gradients() if hasattr(m, "gradients") else {n: p.grad for n, p in m.named_parameters()}
            for m in (generator, discriminator)
        ]
        results.append((image, score, grad, path, grads))
    ours, plain = results
    for a, b in zip(ours[:4], plain[:4], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)
    for a, b in zip(ours[4], plain[4], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] is not None, name
            scale = b[name].abs().max().clamp_min(1)
            torch.testing.assert_close(a[name] / scale, b[name] / scale, rtol=1e-8, atol=1e-8, msg=name)


def test_autocast_is_followed_only_by_the_feature_maps() -> None:
    g, d = small_generator(resolution=32), small_discriminator(resolution=32)
    z, x = cells()
    labels, noise = torch.tensor([0, 1, 0, 1]), noises(g, 4)
    results = []
    for setting, autocast in (("bf16", False), ("auto", True), ("fp32", True)):
        g.compute_dtype = d.compute_dtype = setting
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            image = g(z, x, noise=noise)
            score = d(image, labels, x)
        assert image.dtype == score.dtype == torch.float32
        results.append((image, score))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert not torch.equal(results[0][0], results[2][0])
    assert (results[0][0] - results[2][0]).norm() / results[2][0].norm() < 0.02
    g.compute_dtype = "half"
    with pytest.raises(ValueError, match="compute_dtype='half'"):
        g(z, x)


def test_counts_beyond_those_of_training():
    transform = ExpressionTransform(2)
    transform.set_range(torch.tensor([0.0, 1.0]), torch.tensor([5.0, 4.0]))
    x = torch.tensor([[-0.5, 9.0]])
    np.testing.assert_allclose(transform(x), np.log1p([[0.0, 4.0]]), atol=1e-6)
    with read_beyond(torch.nn.Sequential(transform)):
        np.testing.assert_allclose(transform(x), np.log1p([[-0.5, 9.0]]), atol=1e-6)
    np.testing.assert_allclose(transform(x), np.log1p([[0.0, 4.0]]), atol=1e-6)


def test_borders_are_drawn_as_the_middle_is():
    """With one constant input everywhere and no noise, the image is the same everywhere up to its edge."""
    torch.manual_seed(0)
    sizes = {"img_channels": 1, "resolution": 16, "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8}
    for border, flat in (("replicate", True), ("zero", False)):
        g = Generator(3, mapping_layers=1, gene_layers=2, gene_width=8, border=border, **sizes)
        with torch.no_grad():
            g.const.copy_(g.const[:1, :1].expand_as(g.const))
            image = g(torch.randn(4, 8), torch.ones(4, 3), noise="none")
        spread = image.std(dim=(2, 3)) / image.abs().mean(dim=(2, 3))
        assert bool((spread < 1e-4).all()) == flat, border
