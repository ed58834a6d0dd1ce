from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from sst.nn import (
    ClipTowers,
    Code,
    CosineDistance,
    Generator,
    MapDistance,
    PixelEncoder,
    base_code,
    decode,
    fade_factor,
)
from sst.train import (
    Cells,
    CLIPConfig,
    DataConfig,
    EncoderConfig,
    FitConfig,
    InversionConfig,
    InversionLossConfig,
    TowersConfig,
    clip_task,
    encode,
    fit,
    from_dict,
    inversion_task,
    to_dict,
)
from sst.train._inversion import _without_some_maps, drawn_pairs, response_loss

if TYPE_CHECKING:
    from pathlib import Path

GENES, SIZE = 6, 16


def make_cells(n: int = 48, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Discs whose radius follows gene 0 and whose brightness follows gene 1."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(5, (n, GENES)).astype(np.float32)
    grid = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE / 2 + 0.5))
    disc = 1 / (1 + np.exp(grid[None] - (2 + counts[:, 0] / 3)[:, None, None]))
    bright = np.clip(30 + 15 * counts[:, 1], 0, 250)[:, None, None]
    images = np.stack([disc * bright, disc * 120], axis=1).astype(np.uint8)
    return images, counts


@functools.cache
def able_generator() -> Generator:
    """A generator that can draw these cells: trained a little as a decoder of its own latent codes."""
    torch.manual_seed(0)
    generator = bare_generator()
    images, counts = make_cells()
    real = torch.from_numpy(images).float() / 127.5 - 1
    latent = torch.randn(len(real), 16, requires_grad=True)
    optimizer = torch.optim.Adam([*generator.parameters(), latent], lr=2e-2)
    for _ in range(60):
        loss = (generator(latent, torch.from_numpy(counts), noise="none") - real).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return generator


def bare_generator() -> Generator:
    return Generator(
        GENES,
        img_channels=2,
        resolution=SIZE,
        z_dim=16,
        w_dim=16,
        channel_base=128,
        channel_max=16,
        mapping_layers=2,
        gene_layers=2,
        gene_width=16,
    )


def make_networks(residual: bool = False) -> tuple[PixelEncoder, Generator, ClipTowers]:
    generator = copy.deepcopy(able_generator())
    torch.manual_seed(0)
    encoder = PixelEncoder(
        2,
        SIZE,
        num_styles=generator.num_styles,
        w_dim=16,
        widths=(8, 8, 12, 16),
        depths=(1, 1, 1, 1),
        head_width=16,
        residual=residual,
    )
    return encoder, generator, ClipTowers(GENES, 2, dim=12, widths=(8, 16))


def make_task(config: InversionConfig, encoder: PixelEncoder, generator: Generator, towers: ClipTowers):
    images, counts = make_cells(12, seed=1)
    return inversion_task(
        encoder,
        generator,
        towers,
        config,
        channels=["marker", "DAPI"],
        perceptual=MapDistance(towers.image_backbone),
        identity=CosineDistance(towers.image_backbone, rgb=False),
        held_out=(torch.from_numpy(images), torch.from_numpy(counts)),
    )


def config_of(iterations: int, residual: bool = False, **changes: object) -> InversionConfig:
    fit_config = FitConfig(
        iterations=iterations, batch_size=8, log_every=5, checkpoint_every=5, evaluate_every=50, sample_every=50
    )
    encoder = EncoderConfig(widths=(8, 8, 12, 16), depths=(1, 1, 1, 1), head_width=16, residual=residual)
    return InversionConfig(encoder=encoder, lr=1e-2, fit=fit_config, **changes)


def cells_of() -> Cells:
    images, counts = make_cells()
    return Cells(images, counts, np.zeros(len(images), dtype=int), config=DataConfig())


@pytest.mark.parametrize(("residual", "passes"), [(False, 1), (True, 2)])
def test_only_the_encoder_learns_and_it_learns(residual: bool, passes: int, tmp_path: Path) -> None:
    encoder, generator, towers = make_networks(residual)
    frozen = {k: v.clone() for m in (generator, towers) for k, v in m.state_dict().items()}
    task = make_task(config_of(80, residual=residual, passes=passes), encoder, generator, towers)
    assert task.saved == ["encoder"]
    result = fit(task, cells_of(), config_of(80).fit, folder=tmp_path, device=torch.device("cpu"))
    for key, value in {k: v for m in (generator, towers) for k, v in m.state_dict().items()}.items():
        assert torch.equal(value, frozen[key]), key
    losses = result.history["inversion/loss"].dropna()
    assert losses.iloc[-2:].mean() < 0.8 * losses.iloc[0]
    quality = result.history[["psnr", "ssim", "psnr marker", "ssim DAPI"]].dropna()
    assert quality["psnr"].iloc[-1] > quality["psnr"].iloc[0]
    assert (tmp_path / "samples").exists() or list(tmp_path.rglob("*.png"))


def test_an_encoder_that_says_nothing_responds_as_the_generator_does() -> None:
    _, generator, towers = (m.eval() for m in make_networks())
    images, counts = make_cells(8, seed=2)
    real, x = torch.from_numpy(images).float() / 127.5 - 1, torch.from_numpy(counts)
    others, base = x.roll(1, 0), base_code(generator, towers.encode_image(real))
    silent, loud = (Code(k * torch.randn(8, generator.num_styles, 16)) for k in (0, 9))
    silent, loud = (
        response_loss(generator, base, code, x, others, decode(generator, base, code, x)) for code in (silent, loud)
    )
    torch.testing.assert_close(silent, torch.zeros(8), atol=1e-10, rtol=0)
    assert (loud > 1e-5).all()


def test_the_response_is_that_of_the_code_as_it_was_drawn(tmp_path: Path) -> None:
    """Cells that are drawn without their maps must not pay for what the maps would have drawn: the same genes are no response."""
    _, generator, towers = make_networks()
    encoder = EncoderConfig(
        widths=(8, 8, 12, 16), depths=(1, 1, 1, 1), head_width=16, maps=0.5, map_width=8, map_dropout=0.5
    )
    config = InversionConfig(encoder=encoder, loss=InversionLossConfig(response=1), lr=1e-2, fit=config_of(10).fit)
    sizes = [side for side, _ in generator.noise_shapes if side <= SIZE // 2]
    pixels = PixelEncoder(
        2, SIZE, num_styles=generator.num_styles, w_dim=16, widths=encoder.widths, depths=encoder.depths, head_width=16,
        map_sizes=sizes, map_channels=[1] * len(sizes), map_width=8,
    )  # fmt: skip
    images, counts = make_cells(16)
    cells = Cells(images, np.tile(counts[:1], (16, 1)), np.zeros(16, dtype=int), config=DataConfig())
    task = make_task(config, pixels, generator, towers)
    history = fit(task, cells, config.fit, folder=tmp_path, device=torch.device("cpu")).history
    assert np.abs(history["inversion/response"].dropna()).max() < 1e-8


def test_drawn_pairs_are_one_cell_under_two_expressions() -> None:
    _, generator, towers = (m.eval() for m in make_networks())
    counts = torch.from_numpy(make_cells(8)[1])
    first, second, base = drawn_pairs(generator, towers, counts, counts.roll(1, 0))
    assert first.shape == second.shape == (8, 2, SIZE, SIZE)
    assert not torch.equal(first, second)
    torch.testing.assert_close(base, base_code(generator, towers.encode_image(first)))
    same = drawn_pairs(generator, towers, counts, counts)
    torch.testing.assert_close(same[0], same[1])


@pytest.mark.parametrize(("residual", "passes"), [(False, 1), (True, 2)])
def test_response_and_pairs_are_learnt(residual: bool, passes: int, tmp_path: Path) -> None:
    terms = InversionLossConfig(response=20, pairs=10)
    config = config_of(60, residual=residual, passes=passes, loss=terms)
    task = make_task(config, *make_networks(residual))
    history = fit(task, cells_of(), config.fit, folder=tmp_path, device=torch.device("cpu")).history
    pairs = history["inversion/pairs"].dropna()
    assert pairs.iloc[-2:].mean() < pairs.iloc[0]
    assert np.isfinite(history["inversion/response"].dropna()).all()


def test_resumed_run_equals_one_run(tmp_path: Path) -> None:
    def run(folder: Path, *iterations: int) -> dict[str, torch.Tensor]:
        for count in iterations:
            encoder, generator, towers = make_networks()
            task = make_task(config_of(count), encoder, generator, towers)
            fit(task, cells_of(), config_of(count).fit, folder=folder, device=torch.device("cpu"))
        return encoder.state_dict()

    whole, parts = (
        run(tmp_path / "a", 14),
        run(tmp_path / "b", 5, 14),
    )  # 5 is inside a LookAhead cycle of Ranger (k = 6)
    for key, value in whole.items():
        assert torch.equal(value, parts[key]), key


def test_decode_is_the_formula() -> None:
    encoder, generator, towers = (m.eval() for m in make_networks())
    images = torch.rand(3, 2, SIZE, SIZE) * 2 - 1
    counts = torch.randint(0, 9, (3, GENES)).float()
    with torch.no_grad():
        projection = towers.encode_image(images)
        z = torch.cat([projection, projection], dim=1)[:, :16]  # 12 repeated up to 16
        base = base_code(generator, projection)
        torch.testing.assert_close(base, generator.mapping(z))
        code = encoder(images).styles
        for fade in (0.0, 0.4, 1.0):
            ws = torch.stack([base + code[:, k] * 2 ** (-6 * fade) for k in range(generator.num_styles)], dim=1)
            ws = generator.styles(ws, counts)
            expected = generator.synthesis(ws, generator.kernels(counts), noise="none")
            torch.testing.assert_close(decode(generator, base, code, counts, fade=fade), expected)
            maps = (torch.randn(3, 4, 4, 1), torch.randn(3, 8, 8, 1))
            taps, whole = generator.kernels(counts), Code(code, maps)
            expected = generator.synthesis(ws, taps, noise="none", maps=[m * 2 ** (-6 * fade) for m in maps])
            torch.testing.assert_close(decode(generator, base, whole, counts, fade=fade), expected)
            assert (fade == 1) == torch.allclose(decode(generator, base, code, counts, fade=fade), expected, atol=0.1)
    with pytest.raises(ValueError, match=r"fade=1\.5"):
        fade_factor(1.5)


def test_maps_are_dropped_by_cell() -> None:
    torch.manual_seed(0)
    code = Code(torch.randn(200, 2, 4), (torch.ones(200, 4, 4, 1), torch.ones(200, 8, 8, 3)))
    dropped = _without_some_maps(code, 0.3)
    assert torch.equal(dropped.styles, code.styles)
    first, second = (m.flatten(1) for m in dropped.maps)
    assert torch.equal(first.amin(1), first.amax(1))  # a cell has all of its maps or none
    assert torch.equal(first.amin(1), second.amin(1))
    assert 0.6 < float(first[:, 0].mean()) < 0.8
    assert _without_some_maps(code, 0.0) is code


def test_passes_follow_their_rules() -> None:
    counts = torch.randint(0, 9, (2, GENES)).float()
    images = torch.rand(2, 2, SIZE, SIZE) * 2 - 1
    for residual in (False, True):
        encoder, generator, towers = (m.eval() for m in make_networks(residual))
        with torch.no_grad():
            base = base_code(generator, towers.encode_image(images))
            ours = encode(encoder, generator, base, images, counts, passes=3)
            code = torch.zeros_like(ours.styles)
            for _ in range(3):
                current = decode(generator, base, code, counts)
                if residual:
                    code = code + encoder(images, current).styles
                else:
                    said = encoder(images).styles
                    code = code + said - encoder(current).styles if code.any() else said
        torch.testing.assert_close(ours.styles, code)


@pytest.mark.parametrize("own", [False, True])
def test_clip_finds_partners_better_than_chance(own: bool, tmp_path: Path) -> None:
    images, counts = make_cells(256)
    held = make_cells(64, seed=9)
    torch.manual_seed(0)
    towers = ClipTowers(GENES, 2, dim=16, widths=(8, 16))
    fit_config = FitConfig(iterations=120, batch_size=32, log_every=10, evaluate_every=40, checkpoint_every=40)
    config = CLIPConfig(towers=TowersConfig(dim=16, widths=(8, 16)), fit=fit_config)
    if own:
        config = config.replace(targets="own", temperature=0.1, schedule="cosine")
    task = clip_task(towers, config, held_out=(torch.from_numpy(held[0]), torch.from_numpy(held[1])))
    cells = Cells(images, counts, np.zeros(256, dtype=int), config=config.data)
    history = fit(task, cells, fit_config, folder=tmp_path, device=torch.device("cpu")).history
    last = history.dropna(subset=["rank"]).iloc[-1]
    assert last["chance_top10"] == pytest.approx(10 / 64)
    assert last["image_to_expression_top10"] > 0.3
    assert last["expression_to_image_top10"] > 0.3
    assert last["rank"] < 0.3
    assert towers.training
    assert (last["lr"] < 1e-4) == own


def test_configurations_survive_json_and_name_mistakes() -> None:
    for config in (CLIPConfig.preset("paper"), CLIPConfig.preset("demo")):
        assert from_dict(CLIPConfig, to_dict(config)) == config
    for name in ("paper", "fast", "demo"):
        config = InversionConfig.preset(name)
        assert from_dict(InversionConfig, to_dict(config)) == config
    assert InversionConfig().replace(fit__iterations=7, lr=0.1).fit.iterations == 7
    paper = InversionConfig.preset("paper")
    assert (paper.loss.l2, paper.loss.perceptual_weight, paper.loss.identity_weight) == (15, 0.5, 0.5)
    assert (paper.lr, paper.fit.batch_size, paper.fit.iterations, paper.optimizer) == (1e-4, 8, 800_000, "ranger")
    with pytest.raises(TypeError, match="no 'los'"):
        InversionConfig().replace(los__l2=1)
    with pytest.raises(ValueError, match="residual"):
        InversionConfig(passes=2)
    with pytest.raises(ValueError, match="at least one term"):
        InversionLossConfig(l2=0, perceptual_weight=0, identity_weight=0)
    with pytest.raises(ValueError, match="no published weights"):
        TowersConfig(backbone="small", weights="imagenet")


def test_ranger_never_climbs() -> None:
    from sst.train._inversion import make_optimizer

    torch.manual_seed(0)
    module = torch.nn.Linear(4, 3)
    optimizer = make_optimizer(module, InversionConfig(lr=1e-2))
    x, y = torch.randn(32, 4), 100 * torch.randn(32, 3)
    start = [p.detach().clone() for p in module.parameters()]
    losses = []
    for step in range(40):
        loss = (module(x) - y).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == 3:  # no estimate of the variance yet
            assert all(torch.equal(a, b) for a, b in zip(start, module.parameters(), strict=True))
    assert max(losses) <= losses[0] * (1 + 1e-6)
    assert losses[-1] < losses[0]
