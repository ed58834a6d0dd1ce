from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
import torch

from sst import settings
from sst.models._weights import (
    distance_notes,
    load_resnet50,
    load_weights,
    lpips_distance,
    make_distances,
    moco_distance,
    resolve_distances,
    start_encoder,
    weights_path,
)
from sst.nn import ClipTowers, CosineDistance, MapDistance, PixelEncoder, ResNet50Backbone
from sst.train import InversionLossConfig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "data_dir", tmp_path / "data")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "data" / "weights").mkdir(parents=True)
    return tmp_path


def test_lpips_equals_the_package(bare_machine: Path) -> None:
    import lpips

    theirs = lpips.LPIPS(
        net="alex", pnet_rand=True, verbose=False
    ).eval()  # random AlexNet, the package's linear weights
    alexnet = {}
    for name, value in theirs.net.state_dict().items():
        _, layer, what = name.split(".")
        alexnet[f"features.{layer}.{what}"] = value
    path = bare_machine / "alexnet.pth"
    torch.save(alexnet, path)
    ours = lpips_distance(str(path)).eval()
    x, y = torch.rand(2, 3, 2, 64, 64) * 2 - 1
    pad = torch.full((3, 1, 64, 64), -1.0)
    expected = theirs(torch.cat([pad, x], 1), torch.cat([pad, y], 1)).flatten()
    torch.testing.assert_close(ours(x, ours.targets(y)), expected, rtol=1e-4, atol=1e-6)


def test_moco_checkpoint_is_read_as_data_and_kept_as_safetensors(bare_machine: Path) -> None:
    backbone = ResNet50Backbone(3)
    state = {f"module.encoder_q.{k}": v for k, v in backbone.net.state_dict().items()}
    state |= {"module.encoder_q.fc.0.weight": torch.zeros(2, 2), "module.queue": torch.zeros(3, 3)}
    path = settings.data_dir / "weights" / "moco_v2_800ep_pretrain.pth.tar"
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": state}, path)
    distance = moco_distance()
    for mine, theirs in zip(distance.backbone.parameters(), backbone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    kept = path.with_name("moco_v2_800ep_pretrain.safetensors")
    assert kept.exists()
    path.unlink()
    assert weights_path("moco") == kept
    assert torch.equal(next(moco_distance().backbone.parameters()), next(backbone.parameters()))


def test_a_pickle_that_would_run_is_refused(bare_machine: Path) -> None:
    class Bad:
        def __reduce__(self) -> tuple:
            return (open, (str(bare_machine / "ran"), "w"))

    torch.save({"state_dict": Bad()}, bare_machine / "bad.pth")
    with pytest.raises(Exception, match="[Ww]eights.only|Unsupported"):
        load_weights(bare_machine / "bad.pth")
    assert not (bare_machine / "ran").exists()


def test_hash_in_the_name_is_checked(bare_machine: Path) -> None:
    path = bare_machine / "net.pth"
    torch.save({"a": torch.ones(2)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    good, bad = bare_machine / f"net-{digest[:8]}.pth", bare_machine / "net-00000000.pth"
    for copy in (good, bad):
        copy.write_bytes(path.read_bytes())
    assert torch.equal(load_weights(good)["a"], torch.ones(2))
    with pytest.raises(ValueError, match="should have a SHA-256"):
        load_weights(bad)
    with pytest.raises(FileNotFoundError):
        load_weights(bare_machine / "none.pth")


def test_auto_never_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        msg = "no network"
        raise OSError(msg)

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    assert resolve_distances(InversionLossConfig(), 2) == ("clip", "clip")
    path = settings.data_dir / "weights" / "alexnet-owt-7be5be79.safetensors"
    path.touch()
    assert resolve_distances(InversionLossConfig(), 2) == ("lpips", "clip")
    assert resolve_distances(InversionLossConfig(), 5) == ("clip", "clip")
    path.unlink()
    with pytest.raises(RuntimeError, match="weights of alexnet are not on this machine"):
        lpips_distance()
    with pytest.raises(FileNotFoundError, match="identity='clip'"):
        moco_distance()


def test_notes_name_the_networks_of_the_loss(bare_machine: Path) -> None:
    del bare_machine
    published = distance_notes(InversionLossConfig(perceptual="lpips", identity="moco"))
    assert published["perceptual loss"] == "LPIPS on AlexNet, ImageNet weights of torchvision (alexnet-owt-7be5be79)"
    assert published["identity loss"] == "1 - cosine of ResNet-50 MoCo v2 features, weights of moco_v2_800ep_pretrain"
    own = InversionLossConfig(
        perceptual="lpips", identity="moco", perceptual_weights="some/alex.pth", identity_weights="own/moco.pth.tar"
    )
    assert distance_notes(own)["perceptual loss"] == "LPIPS on AlexNet, weights of alex.pth"
    assert distance_notes(own)["identity loss"].endswith("weights of moco.pth.tar")
    substitutes = distance_notes(InversionLossConfig(perceptual="clip", identity="clip", identity_weight=0))
    assert "in place of LPIPS" in substitutes["perceptual loss"]
    assert substitutes["identity loss"] == "none"


def test_substitutes_use_the_own_tower() -> None:
    towers = ClipTowers(4, 2, dim=8, widths=(4, 8))
    perceptual, identity = make_distances(InversionLossConfig(perceptual="clip", identity="clip"), towers)
    assert isinstance(perceptual, MapDistance)
    assert isinstance(identity, CosineDistance)
    assert perceptual.backbone is identity.backbone is towers.image_backbone
    none = InversionLossConfig(perceptual_weight=0, identity_weight=0)
    assert make_distances(none, towers) == (None, None)


def test_imagenet_starts_the_encoder(bare_machine: Path) -> None:
    from torchvision.models import resnet34

    net = resnet34(weights=None)
    torch.save(net.state_dict(), bare_machine / "r34.pth")
    encoder = PixelEncoder(2, 32, num_styles=8, head_width=8, w_dim=8)
    start_encoder(encoder, str(bare_machine / "r34.pth"))
    assert torch.equal(encoder.layer3[2].conv1.weight, net.layer3[2].conv1.weight)
    torch.testing.assert_close(encoder.stem.weight.sum(1), net.conv1.weight.sum(1), rtol=1e-4, atol=1e-5)
    narrow = PixelEncoder(2, 32, num_styles=8, w_dim=8, widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), head_width=8)
    with pytest.raises(ValueError, match="ResNet-34"):
        start_encoder(narrow, str(bare_machine / "r34.pth"))
    with pytest.raises(ValueError, match="not the weights of a ResNet-50"):
        load_resnet50(ResNet50Backbone(2), load_weights(bare_machine / "r34.pth"))
