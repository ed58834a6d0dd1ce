from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import imageio.v3 as iio
import numpy as np
import pytest
import xarray as xr

from sst.pl._transition import transition

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def da() -> xr.DataArray:
    t = np.linspace(0, 1, 11)
    ramp = (t[:, None, None, None, None] * np.array([100, 200, 250])[None, :, None, None, None]) * np.ones(
        (1, 1, 2, 8, 8)
    )
    ramp[:, :, 1] = 0  # no DAPI: green is the marker alone
    return xr.DataArray(
        ramp.astype(np.uint8),
        dims=("step", "cell", "channel", "y", "x"),
        coords={"step": t, "cell": ["a", "b", "c"], "channel": ["marker", "DAPI"]},
    )


def test_grid_shows_cells_by_steps(da: xr.DataArray) -> None:
    axes = transition(da, cells=["c", 0], steps=3)
    assert len(axes) == 2 * 3
    assert [a.get_title() for a in axes[:3]] == ["t = 0", "t = 0.5", "t = 1"]
    assert axes[0].get_ylabel() == "c"
    assert axes[3].get_ylabel() == "a"
    assert [int(a.images[0].get_array()[0, 0, 1]) for a in axes] == [0, 125, 250, 0, 50, 100]


def test_gif_goes_there_and_back(da: xr.DataArray, tmp_path: Path) -> None:
    path = transition(da, save=tmp_path / "a.gif", tile=16, columns=2, fps=10)
    frames = iio.imread(path)[..., :3].astype(int)
    peak = frames[:, 8, 28, 1]  # green of cell b
    assert peak[0] == pytest.approx(0, abs=8)
    assert peak.max() == pytest.approx(200, abs=12)
    assert peak[-1] == pytest.approx(0, abs=8)
    assert np.argmax(peak) < len(peak) - 5


def test_mp4_has_every_step(da: xr.DataArray, tmp_path: Path) -> None:
    path = transition(da, save=tmp_path / "a.mp4", tile=33, columns=3)
    frames = iio.imread(path, plugin="FFMPEG")
    assert len(frames) == 11 * 2 + 12 * 2
    assert frames.shape[1] % 2 == frames.shape[2] % 2 == 0


def test_mp4_without_ffmpeg_says_so(da: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "imageio_ffmpeg":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RuntimeError, match="needs ffmpeg"):
        transition(da, save=tmp_path / "a.mp4")


def test_errors(da: xr.DataArray) -> None:
    with pytest.raises(KeyError, match="'d' is not a cell"):
        transition(da, cells=["d"])
    with pytest.raises(ValueError, match="dimensions"):
        transition(da[0])
    with pytest.raises(ValueError, match="labels has 1"):
        transition(da, labels=["x"])
