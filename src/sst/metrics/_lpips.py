"""Learned perceptual distance between images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sst._arguments import checked
from sst._settings import settings

from ._images import as_image_pair

if TYPE_CHECKING:
    import torch


@checked
def lpips(
    x: np.ndarray,
    y: np.ndarray,
    *,
    weights: str | Path,
    per_channel: bool = False,
    device: str | None = None,
    batch_size: int = 32,
) -> np.ndarray:
    """LPIPS (AlexNet) of each pair of images; 0 for equal ones.

    Channels are put into RGB as everywhere here: 1 is repeated, 2 get an empty red one.

    Parameters
    ----------
    x, y
        uint8 images n x c x h x w, c <= 3.
    weights
        Path of torchvision's AlexNet (ImageNet) as ``.pth`` or ``.safetensors``, or ``"download"``: torchvision fetches it.
        The linear layers come with the ``lpips`` package.
    per_channel
        One value a channel (each repeated to three), n x c.
    device, batch_size
        Where and how many at a time.

    Returns
    -------
    n values (float64), or n x c.

    Raises
    ------
    ValueError
        Shapes or types differ, not uint8, more than three channels.
    FileNotFoundError
        No such weights.

    References
    ----------
    Zhang et al., *The unreasonable effectiveness of deep features as a perceptual metric* (2018).
    """
    import torch

    x, y = as_image_pair(x, y)
    if x.dtype != np.uint8:
        msg = f"lpips takes 8-bit images, got {x.dtype}; use sst.pp.rescale_intensity first."
        raise ValueError(msg)
    n, c = x.shape[:2]
    if per_channel:
        flat = [a.reshape(n * c, 1, *a.shape[2:]) for a in (x, y)]
        return lpips(*flat, weights=weights, device=device, batch_size=batch_size).reshape(n, c)
    if c > 3:
        msg = f"lpips sees three channels, got {c}: use per_channel=True."
        raise ValueError(msg)
    where = settings.torch_device(device)
    net = _network(weights).to(where)
    out = np.empty(n)
    with torch.no_grad():
        for i in range(0, n, batch_size):
            a, b = (_rgb(torch.as_tensor(v[i : i + batch_size]).to(where)) for v in (x, y))
            out[i : i + batch_size] = net(a, b).flatten().cpu().numpy()
    return out


def _rgb(images: torch.Tensor) -> torch.Tensor:
    import torch

    z = images.to(torch.float32) / 127.5 - 1
    if z.shape[1] == 1:
        return z.expand(-1, 3, -1, -1)
    return torch.cat([torch.full_like(z[:, :1], -1), z], dim=1) if z.shape[1] == 2 else z


def _network(weights: str | Path) -> torch.nn.Module:
    import contextlib
    import io

    import lpips as package
    import torch

    with contextlib.redirect_stdout(io.StringIO()):  # the package prints what it loads
        if str(weights) == "download":
            net = package.LPIPS(net="alex", pretrained=True, verbose=False)
        else:
            path = Path(weights)
            if not path.is_file():
                msg = f"weights={str(weights)!r}: no such file. Give AlexNet's ImageNet weights, or 'download'."
                raise FileNotFoundError(msg)
            net = package.LPIPS(net="alex", pnet_rand=True, pretrained=True, verbose=False)
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                state = load_file(path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
            # the package numbers AlexNet's layers as torchvision does, but cuts them into five slices
            for part in (getattr(net.net, f"slice{k}") for k in range(1, 6)):
                for index, layer in part.named_children():
                    for name, parameter in layer.named_parameters():
                        parameter.data.copy_(state[f"features.{index}.{name}"])
    return net.eval().requires_grad_(False)  # noqa: FBT003
