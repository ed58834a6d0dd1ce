from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr

from sst.report import Section, write_report
from sst.report._slider import transition_slider

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def make_transition(steps: int = 40, cells: int = 2, channels: int = 1, size: int = 16) -> xr.DataArray:
    """Cells whose brightness is their step: 0 at t = 0, 240 at t = 1."""
    t = np.linspace(0, 1, steps)
    images = np.broadcast_to((240 * t)[:, None, None, None, None], (steps, cells, channels, size, size))
    return xr.DataArray(
        images.astype(np.uint8),
        dims=("step", "cell", "channel", "y", "x"),
        coords={"step": t, "cell": [f"cell <{k}>" for k in range(cells)]},
    )


def test_slider_is_self_contained_and_escaped() -> None:
    text = transition_slider(make_transition(), max_steps=9)
    assert not re.search(r"(src|href)=|https?://|@import", text)
    assert text.count("data:image/png;base64,") == 2
    assert "cell &lt;0&gt;" in text
    assert "cell <0>" not in text
    values = [float(v) for v in re.search(r"t=\[([^\]]*)\]", text)[1].split(",")]
    assert len(values) == 9
    assert (values[0], values[-1]) == (0, 1)
    assert 'max="8"' in text


def test_slider_says_what_is_wrong() -> None:
    da = make_transition()
    with pytest.raises(ValueError, match="dimensions"):
        transition_slider(da.transpose("cell", "step", "channel", "y", "x"))
    with pytest.raises(ValueError, match="labels has 1"):
        transition_slider(da, ["a"])
    with pytest.raises(ValueError, match="1 steps"):
        transition_slider(da[:1])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_dragging_turns_the_cells(tmp_path: Path) -> None:
    page = write_report(
        tmp_path / "report.html",
        title="Slider",
        sections=[Section("Turn", html=transition_slider(make_transition()) + transition_slider(make_transition(30)))],
    )
    # The page drags its own first slider to the end, as a user would, and the pixels are looked at.
    text = page.read_text()
    drag = "r=document.querySelector('.sst-turn input');r.value=r.max;r.dispatchEvent(new Event('input'));"
    (tmp_path / "start.html").write_text(text)
    (tmp_path / "end.html").write_text(text.replace("</body>", f"<script>{drag}</script></body>"))
    seen = {}
    for name in ("start", "end"):
        dump = _chromium(tmp_path, "--dump-dom", f"file://{tmp_path / name}.html").stdout
        assert dump.count('data-ready="1"') == 2  # both scripts ran through
        seen[name] = re.findall(r"<output>(t = [\d.]+)</output>", dump)
        _chromium(
            tmp_path, f"--screenshot={tmp_path / name}.png", "--window-size=800,700", f"file://{tmp_path / name}.html"
        )
    assert seen == {"start": ["t = 0.00", "t = 0.00"], "end": ["t = 1.00", "t = 0.00"]}
    import imageio.v3 as iio

    start, end = (iio.imread(tmp_path / f"{name}.png")[..., :3].astype(int) for name in ("start", "end"))
    grey = (end == 240).all(-1)
    assert grey.sum() > 2 * 100 * 100  # both cells of the first slider turned from black ...
    assert (start[grey] == 0).mean() > 0.95
    assert (end == 0).all(-1).sum() > 2 * 100 * 50  # ... and those of the second stayed


def _chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=120)
