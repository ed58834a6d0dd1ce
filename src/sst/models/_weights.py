"""Published weights of others' networks: found, checked, converted once, loaded. No pickle is kept, none is run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sst._files import new_file
from sst._settings import logger, settings
from sst.nn import CosineDistance, LpipsDistance, MapDistance, ResNet50Backbone, adapt_first_convolution

if TYPE_CHECKING:
    from torch import Tensor

    from sst.nn import ClipTowers, PixelEncoder
    from sst.train import InversionLossConfig

# torchvision names a file after the first eight digits of its SHA-256
IMAGENET = {
    "alexnet": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
}
MOCO = "moco_v2_800ep_pretrain"  # .pth.tar of facebookresearch/moco, md5 a04e12f8...


def weights_path(name: str) -> Path | None:
    """Where published weights lie on this machine: ``"alexnet"``, ``"resnet34"``, ``"resnet50"`` or ``"moco"``.

    ``settings.data_dir / "weights"`` is looked through first, then torch's own cache. ``None`` if they are not there; nothing
    is downloaded.
    """
    import torch

    stem = MOCO if name == "moco" else Path(IMAGENET[name]).stem
    for folder in (settings.data_dir / "weights", Path(torch.hub.get_dir()) / "checkpoints"):
        for suffix in (".safetensors", ".pth", ".pth.tar"):
            path = folder / (stem + suffix)
            if path.exists():
                return path
    return None


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors of a state dict by name, from ``.safetensors`` or, read as data only, ``.pth``, ``.pt``, ``.pth.tar``.

    A PyTorch file is read with ``weights_only=True`` (nothing in it can run), once: its tensors are kept beside it, or in
    ``settings.data_dir / "weights"`` if that is not writable, as safetensors. A file whose name ends in a hash, as
    torchvision's do, must have it.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The hash in its name is not the file's, or the file holds no tensors by name.
    """
    import torch
    from safetensors.torch import load_file, save_file

    path = Path(path)
    if not path.exists():
        msg = f"no weights at {path}."
        raise FileNotFoundError(msg)
    if path.suffix == ".safetensors":
        return load_file(path)
    tail = path.name.split(".")[0].rsplit("-", 1)[-1]
    if path.suffix == ".pth" and len(tail) == 8 and set(tail) <= set("0123456789abcdef"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not digest.startswith(tail):
            msg = f"{path.name} should have a SHA-256 that begins with {tail}, but it is {digest[:8]}...: download it again."
            raise ValueError(msg)
    loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    tensors = {
        str(k): v.detach().clone().contiguous()
        for k, v in (loaded.items() if isinstance(loaded, dict) else ())
        if isinstance(v, torch.Tensor)
    }
    if not tensors:
        msg = f"{path} holds no tensors by name."
        raise ValueError(msg)
    name = path.name.removesuffix(".tar").removesuffix(".pth").removesuffix(".pt") + ".safetensors"
    for folder in (path.parent, settings.data_dir / "weights"):
        try:
            with new_file(folder / name) as draft:
                save_file(tensors, draft)
        except OSError:
            continue
        logger.info("kept the weights of %s as %s", path.name, folder / name)
        break
    return tensors


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """Torchvision's ImageNet weights: from this machine, else downloaded into torch's cache; the hash is checked.

    Raises
    ------
    RuntimeError
        They are not here and cannot be downloaded.
    """
    import torch

    path = weights_path(name)
    if path is None:
        target = Path(torch.hub.get_dir()) / "checkpoints" / Path(IMAGENET[name]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                IMAGENET[name], str(target), hash_prefix=target.stem.rsplit("-", 1)[-1], progress=settings.progress
            )
        except (OSError, RuntimeError) as error:
            msg = (
                f"the ImageNet weights of {name} are not on this machine and cannot be downloaded from {IMAGENET[name]} "
                f"({error}). Put the file into {settings.data_dir / 'weights'}, or choose weights='none' (or the 'clip' loss)."
            )
            raise RuntimeError(msg) from error
        path = target
    return load_weights(path)


def start_towers(towers: ClipTowers, weights: str) -> None:
    """Start the image tower of ``"resnet50"`` from ``"imagenet"`` or from a file."""
    if weights == "none":
        return
    tensors = imagenet_weights("resnet50") if weights == "imagenet" else load_weights(weights)
    load_resnet50(towers.image_backbone, tensors)  # type: ignore[arg-type]


def load_resnet50(backbone: ResNet50Backbone, tensors: dict[str, Tensor]) -> None:
    """Put a ResNet-50's weights (torchvision's names, or MoCo's with ``module.encoder_q.`` before) into a backbone.

    Raises
    ------
    ValueError
        They are not a ResNet-50's.
    """
    prefix = "module.encoder_q."
    if any(k.startswith(prefix) for k in tensors):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    tensors = {k: v for k, v in tensors.items() if not k.startswith("fc.")}
    if "conv1.weight" in tensors:
        channels = backbone.net.conv1.weight.shape[1]
        tensors["conv1.weight"] = adapt_first_convolution(tensors["conv1.weight"], int(channels))
    _load_strict(backbone.net, tensors, "a ResNet-50")


def start_encoder(encoder: PixelEncoder, weights: str) -> None:
    """Start E_p's stem and stages from ResNet-34's ImageNet weights (``"imagenet"``) or from a file.

    Raises
    ------
    ValueError
        The encoder's widths and depths are not ResNet-34's.
    """
    if weights == "none":
        return
    tensors = imagenet_weights("resnet34") if weights == "imagenet" else load_weights(weights)
    wanted = {k for k in encoder.state_dict() if k.startswith("layer")}
    mine = encoder.state_dict()
    chosen = {k: v for k, v in tensors.items() if k in wanted and v.shape == mine[k].shape}
    if set(chosen) != wanted:
        msg = (
            f"weights={weights!r} have {len(chosen)} of the {len(wanted)} tensors of this encoder's stages; ResNet-34's need "
            "widths=(64, 128, 256, 512) and depths=(3, 4, 6, 3)."
        )
        raise ValueError(msg)
    chosen["stem.weight"] = adapt_first_convolution(tensors["conv1.weight"], encoder.stem.in_channels)
    chosen |= {f"norm.{k.removeprefix('bn1.')}": v for k, v in tensors.items() if k.startswith("bn1.")}
    encoder.load_state_dict(chosen, strict=False)


def lpips_distance(weights: str = "none") -> LpipsDistance:
    """LPIPS on AlexNet; the linear weights come with the ``lpips`` package, AlexNet's from a file or torchvision."""
    import lpips

    tensors = imagenet_weights("alexnet") if weights == "none" else load_weights(weights)
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    # The package cuts torchvision's `features` into slices that keep the layers' numbers.
    state = {}
    for name in network.net.state_dict():
        _, layer, what = name.split(".")
        key = f"features.{layer}.{what}"
        if key not in tensors:
            msg = f"the weights of AlexNet lack {key!r}."
            raise ValueError(msg)
        state[name] = tensors[key]
    network.net.load_state_dict(state)
    return LpipsDistance(network)


def moco_distance(weights: str = "none") -> CosineDistance:
    """Cosine distance of MoCo v2's ResNet-50, from a file or :func:`weights_path`.

    Raises
    ------
    FileNotFoundError
        There is no checkpoint.
    """
    path = Path(weights) if weights != "none" else weights_path("moco")
    if path is None:
        msg = (
            f"no MoCo v2 checkpoint: put {MOCO}.pth.tar (facebookresearch/moco, 800 epochs) into "
            f"{settings.data_dir / 'weights'}, or choose identity='clip'."
        )
        raise FileNotFoundError(msg)
    backbone = ResNet50Backbone(3)
    load_resnet50(backbone, load_weights(path))
    return CosineDistance(backbone, rgb=True)


def resolve_distances(loss: InversionLossConfig, channels: int) -> tuple[str, str]:
    """What ``"auto"`` means on this machine: ``("lpips" | "clip", "moco" | "clip")``."""
    perceptual, identity = loss.perceptual, loss.identity
    if perceptual == "auto":
        here = loss.perceptual_weights != "none" or weights_path("alexnet") is not None
        perceptual = "lpips" if here and channels <= 3 else "clip"
    if identity == "auto":
        here = loss.identity_weights != "none" or weights_path("moco") is not None
        identity = "moco" if here and channels <= 3 else "clip"
    return perceptual, identity


def origin(weights: str, name: str) -> str:
    """Where weights come from, in words; ``name`` is that of the published ones."""
    if weights == "imagenet":
        return f"ImageNet weights of torchvision ({Path(IMAGENET[name]).stem})"
    return "random weights" if weights == "none" else f"weights of {Path(weights).name}"


def distance_notes(loss: InversionLossConfig) -> dict[str, str]:
    """Which networks compute the loss, in words, for the registry; ``"auto"`` must be resolved before."""
    path = weights_path("moco") if loss.identity == "moco" and loss.identity_weights == "none" else None
    lpips_source = "imagenet" if loss.perceptual_weights == "none" else loss.perceptual_weights
    moco_source = str(path or MOCO) if loss.identity_weights == "none" else loss.identity_weights
    words = {
        "lpips": f"LPIPS on AlexNet, {origin(lpips_source, 'alexnet')}",
        "moco": f"1 - cosine of ResNet-50 MoCo v2 features, weights of {Path(moco_source).name}",
    }
    perceptual = words.get(loss.perceptual, "features of the own CLIP image tower, in place of LPIPS")
    identity = words.get(loss.identity, "1 - cosine of the own CLIP image tower's features, in place of MoCo v2")
    return {
        "perceptual loss": perceptual if loss.perceptual_weight else "none",
        "identity loss": identity if loss.identity_weight else "none",
    }


def make_distances(loss: InversionLossConfig, towers: ClipTowers) -> tuple[Any, Any]:
    """The two frozen networks of the inversion's loss (``None`` where the weight is 0); ``"auto"`` must be resolved before."""
    perceptual = identity = None
    if loss.perceptual_weight:
        lpips_asked = loss.perceptual == "lpips"
        perceptual = lpips_distance(loss.perceptual_weights) if lpips_asked else MapDistance(towers.image_backbone)
    if loss.identity_weight:
        moco_asked = loss.identity == "moco"
        identity = (
            moco_distance(loss.identity_weights) if moco_asked else CosineDistance(towers.image_backbone, rgb=False)
        )
    return perceptual, identity


def _load_strict(module: Any, tensors: dict[str, Tensor], what: str) -> None:
    mine = module.state_dict()
    missing = [k for k in mine if k not in tensors and not k.endswith("num_batches_tracked")]
    wrong = [k for k, v in mine.items() if k in tensors and tensors[k].shape != v.shape]
    if missing or wrong:
        msg = f"these are not the weights of {what}: {len(missing)} tensors missing {missing[:3]}, {len(wrong)} of another shape."
        raise ValueError(msg)
    module.load_state_dict({k: tensors.get(k, v) for k, v in mine.items()})
