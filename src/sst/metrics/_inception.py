"""Inception-v3 pool features with the weights of 2015, the space that "FID" is reported in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sst._download import download, sha256_of
from sst._settings import settings

from ._images import as_images

if TYPE_CHECKING:
    import torch

WEIGHTS_URL = (
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
)
WEIGHTS_HASH = "6726825d"  # of the file's sha256, its first digits: the release gives no more
SIDE = 299


class Inception:
    """Pool features (2048) of Inception-v3 with the TensorFlow weights of 2015-12-05, after clean-fid's resize.

    Images of 1 channel are repeated to three, those of 2 get an empty red one, as in the paper. They are resized to
    299 pixels by an antialiased bicubic filter in floating point, channel by channel, and clipped to 0..255.

    Parameters
    ----------
    weights
        Path of ``pt_inception-2015-12-05-6726825d.pth`` (or the same tensors as safetensors), or ``"download"``: fetched
        once into ``sst.settings.data_dir`` and checked against its hash. Nothing is fetched unasked.
    device, batch_size
        Where and how many at a time.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        The file is another one.

    References
    ----------
    Szegedy et al., *Rethinking the Inception architecture* (2016); Heusel et al. (2017); Parmar et al., *On aliased
    resizing and surprising subtleties in GAN evaluation* (2022).
    """

    def __init__(self, weights: str | Path = "download", *, device: str | None = None, batch_size: int = 32) -> None:
        path = fetch_weights() if str(weights) == "download" else Path(weights)
        if not path.is_file():
            msg = f"weights={str(weights)!r}: no such file. Give the path of {Path(WEIGHTS_URL).name}, or 'download'."
            raise FileNotFoundError(msg)
        self.device = settings.torch_device(device)
        self.batch_size = batch_size
        self._net = build_inception()
        state = _read(path)
        wanted = self._net.state_dict()
        missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
        if missing:
            msg = f"{path.name} is not the Inception of 2015: it lacks {missing[:3]} ({len(missing)} tensors)."
            raise ValueError(msg)
        self._net.load_state_dict({k: state.get(k, v) for k, v in wanted.items()})
        self._net.eval().requires_grad_(requires_grad=False).to(self.device)
        digest = sha256_of(path)
        published = digest.startswith(WEIGHTS_HASH)
        self.name = f"inception-2015 (pool 2048, {digest[:8]}{'' if published else ', not the published weights'})"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Features n x 2048 (float32) of uint8 images n x c x h x w, c <= 3."""
        import torch

        images = as_images(images)
        out = np.empty((len(images), 2048), np.float32)
        with torch.no_grad():
            for i in range(0, len(images), self.batch_size):
                batch = torch.as_tensor(np.ascontiguousarray(images[i : i + self.batch_size])).to(self.device)
                out[i : i + self.batch_size] = self._net(prepare(batch)).cpu().numpy()
        return out


def prepare(images: torch.Tensor) -> torch.Tensor:
    """Three channels, 299 pixels, (x - 128) / 128: b x c x h x w uint8 -> b x 3 x 299 x 299 float32."""
    import torch
    from torch.nn import functional

    c = images.shape[1]
    if c > 3:
        msg = f"Inception sees three channels, got {c}: choose up to three, or another feature space."
        raise ValueError(msg)
    x = images.to(torch.float32)
    if c == 1:
        x = x.expand(-1, 3, -1, -1)
    elif c == 2:
        x = torch.cat([torch.zeros_like(x[:, :1]), x], dim=1)
    x = functional.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
    return (x.clamp(0, 255) - 128) / 128


def fetch_weights() -> Path:
    """Download the weights once and check their hash; returns the path."""
    path = settings.data_dir / "weights" / WEIGHTS_URL.rsplit("/", 1)[-1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        download(WEIGHTS_URL, path, sha256=WEIGHTS_HASH)
    return path


def _read(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        msg = f"{path.name} holds a {type(state).__name__}, not a dictionary of tensors."
        raise ValueError(msg)
    return state


def build_inception() -> torch.nn.Module:
    """The network of the 2015 weights: torchvision's blocks with the differences of the TensorFlow graph.

    Average pools inside the mixed blocks do not count the padding, and the last mixed block pools by maximum.
    """
    import torch
    from torch.nn import functional
    from torchvision.models import inception as tv

    class MixedPool(torch.nn.Module):
        """A mixed block whose pool branch is replaced; the convolutions are torchvision's."""

        def __init__(self, block: torch.nn.Module, *, maximum: bool) -> None:
            super().__init__()
            self.block = block
            self.maximum = maximum

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            plain = functional.avg_pool2d

            def pool(y: torch.Tensor, kernel_size: int, stride: int = 1, padding: int = 0) -> torch.Tensor:
                if self.maximum:
                    return functional.max_pool2d(y, kernel_size, stride, padding)
                return plain(y, kernel_size, stride, padding, count_include_pad=False)

            return torch.cat(branches(self.block, x, pool), dim=1)

    def branches(b: Any, x: torch.Tensor, pool: Any) -> list[torch.Tensor]:
        pooled = b.branch_pool(pool(x, 3, 1, 1))
        if isinstance(b, tv.InceptionA):
            return [b.branch1x1(x), b.branch5x5_2(b.branch5x5_1(x)), chain(b, x, "branch3x3dbl", 3), pooled]
        if isinstance(b, tv.InceptionC):
            return [b.branch1x1(x), chain(b, x, "branch7x7", 3), chain(b, x, "branch7x7dbl", 5), pooled]
        wide = b.branch3x3_1(x)
        deep = b.branch3x3dbl_2(b.branch3x3dbl_1(x))
        return [
            b.branch1x1(x),
            torch.cat([b.branch3x3_2a(wide), b.branch3x3_2b(wide)], 1),
            torch.cat([b.branch3x3dbl_3a(deep), b.branch3x3dbl_3b(deep)], 1),
            pooled,
        ]

    def chain(b: Any, x: torch.Tensor, name: str, steps: int) -> torch.Tensor:
        for k in range(1, steps + 1):
            x = getattr(b, f"{name}_{k}")(x)
        return x

    class Pool2048(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            net = tv.Inception3(num_classes=1008, aux_logits=False, transform_input=False, init_weights=False)
            for name, child in net.named_children():
                if name not in {"avgpool", "dropout", "fc"}:
                    self.add_module(name, child)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for name, stage in self.named_children():
                if isinstance(stage, (tv.InceptionA, tv.InceptionC, tv.InceptionE)):
                    x = MixedPool(stage, maximum=name == "Mixed_7c")(x)
                else:
                    x = stage(x)
            return x.mean(dim=(2, 3))

    return Pool2048()
