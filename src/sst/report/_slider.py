"""A slider over a transition: drag t from 0 to 1 and watch each cell turn; HTML, CSS and a few lines of script."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from sst import _keys
from sst._validate import check_range
from sst.pl._drawing import to_rgb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xarray import DataArray

_STYLE = """
.sst-turn{--n:1;--k:0;font:inherit;color:#1d2433;margin:1rem 0;background:#fff;border-radius:8px;padding:0 .75rem .75rem;
 color-scheme:light}
.sst-turn .bar{display:flex;align-items:center;gap:.9rem;position:sticky;top:0;z-index:1;background:#ffffffee;
 backdrop-filter:blur(6px);padding:.7rem .2rem;border-bottom:1px solid #e3e7ee}
.sst-turn .bar span{font-size:.85rem;color:#5b6577;white-space:nowrap}
.sst-turn input[type=range]{flex:1;min-width:6rem;height:1.6rem;margin:0;accent-color:#2456a6;cursor:grab}
.sst-turn input[type=range]:active{cursor:grabbing}
.sst-turn output{font-variant-numeric:tabular-nums;font-weight:650;min-width:4.4rem;text-align:right}
.sst-turn button{font:inherit;font-size:.85rem;width:4.6rem;padding:.25rem 0;border:1px solid #2456a6;border-radius:6px;
 background:#fff;color:#2456a6;cursor:pointer}
.sst-turn button:hover{background:#eef3fb}
.sst-turn :focus-visible{outline:3px solid #8fb2e8;outline-offset:2px}
.sst-turn .cells{display:grid;grid-template-columns:repeat(auto-fill,minmax(${tile}px,1fr));gap:.8rem;margin-top:1rem}
.sst-turn figure{margin:0}
.sst-turn .cell{aspect-ratio:${aspect};border-radius:8px;background-color:#000;background-repeat:no-repeat;
 background-size:calc(var(--n)*100%) 100%;background-position:calc(var(--k)/(var(--n) - 1)*100%) 0;
 box-shadow:0 0 0 1px #e3e7ee}
.sst-turn figcaption{font-size:.8rem;color:#5b6577;margin-top:.3rem;overflow-wrap:anywhere}
@media print{.sst-turn .bar{display:none}}
"""

_SCRIPT = """
(function(){
 var box=document.getElementById("${id}"),range=box.querySelector("input"),out=box.querySelector("output");
 var button=box.querySelector("button"),t=${values},timer=null,step=1;
 function show(k){box.style.setProperty("--k",k);var s="t = "+t[k].toFixed(2);out.textContent=s;
  range.setAttribute("aria-valuetext",s)}
 function stop(){if(timer){clearInterval(timer);timer=null}button.textContent="Play";button.setAttribute("aria-pressed","false")}
 range.addEventListener("input",function(){stop();show(+range.value)});
 button.addEventListener("click",function(){
  if(timer){stop();return}
  button.textContent="Pause";button.setAttribute("aria-pressed","true");
  if(+range.value>=t.length-1)step=-1;if(+range.value<=0)step=1;
  timer=setInterval(function(){var k=+range.value+step;if(k<0||k>t.length-1){step=-step;k=+range.value+step}
   range.value=k;show(k)},Math.max(40,2400/t.length))});
 show(+range.value);box.dataset.ready="1";
})();
"""

_WIDGET = Template(
    "<style>"
    + _STYLE
    + '</style><div class="sst-turn" id="${id}" style="--n:${n}" role="group" aria-label="${title}">'
    + '<div class="bar"><button type="button" aria-pressed="false">Play</button><span>${start}</span>'
    + '<input type="range" min="0" max="${last}" step="1" value="0" aria-label="${title}">'
    + "<span>${end}</span><output>t = 0.00</output></div>"
    + '<div class="cells">${cells}</div></div><script>'
    + _SCRIPT
    + "</script>"
)


def transition_slider(
    da: DataArray,
    labels: Sequence[str] | None = None,
    *,
    title: str = "Strength of the edit",
    ends: tuple[str, str] = ("as it is", "edited"),
    max_steps: int = 33,
    tile: int = 150,
    colors: Sequence[str] | None = None,
) -> str:
    """HTML of a slider under which every cell turns.

    It needs no server and no network: each cell is one PNG strip inside the page, and the slider moves the strips. It works
    with mouse, touch and keyboard (arrow keys, Home, End), and with screen readers.

    Parameters
    ----------
    da
        From :func:`sst.tl.transition`: dimensions step, cell, channel, y, x; uint8.
    labels
        One caption a cell; the names of the cells if left out.
    title
        What the slider is called.
    ends
        What is written at its two ends.
    max_steps
        At most this many steps are kept, evenly spaced, the first and last among them.
    tile
        Smallest width of a cell on the page, px.
    colors
        Tints of the channels, as :func:`sst.pl.gallery` takes them.

    Returns
    -------
    HTML to put into a page, for example as ``Section(html=...)``.

    Raises
    ------
    ValueError
        The array has other dimensions, fewer than two steps, or the labels are not one a cell.
    """
    dims = ("step", "cell", "channel", "y", "x")
    if tuple(da.dims) != dims:
        msg = f"da has dimensions {tuple(da.dims)}; expected {dims}, as sst.tl.transition returns them."
        raise ValueError(msg)
    check_range("max_steps", max_steps, low=2)
    if da.sizes["step"] < 2 or da.sizes["cell"] < 1:
        msg = f"da has {da.sizes['step']} steps and {da.sizes['cell']} cells; at least 2 and 1 are needed."
        raise ValueError(msg)
    names = [str(c) for c in (labels if labels is not None else da["cell"].to_numpy())]
    if len(names) != da.sizes["cell"]:
        msg = f"labels has {len(names)} entries for {da.sizes['cell']} cells."
        raise ValueError(msg)
    keep = np.unique(np.linspace(0, da.sizes["step"] - 1, min(max_steps, da.sizes["step"])).round().astype(int))
    values = [round(float(v), 4) for v in da["step"].to_numpy()[keep]]
    light = bool(da.attrs.get(_keys.BRIGHTFIELD, False))
    frames = to_rgb(da.isel(step=keep).to_numpy(), colors, brightfield=light)  # step, cell, y, x, 3
    uris = [_strip(frames[:, k]) for k in range(frames.shape[1])]
    cells = "".join(
        f'<figure><div class="cell" role="img" aria-label="{html.escape(name, quote=True)}" '
        f"style=\"background-image:url('{uri}')\"></div><figcaption>{html.escape(name)}</figcaption></figure>"
        for name, uri in zip(names, uris, strict=True)
    )
    return _WIDGET.substitute(
        id="turn-" + hashlib.sha256((title + cells).encode()).hexdigest()[:10],
        n=len(keep),
        last=len(keep) - 1,
        title=html.escape(title, quote=True),
        start=html.escape(ends[0]),
        end=html.escape(ends[1]),
        values=str(values),
        tile=int(tile),
        aspect=f"{da.sizes['x']} / {da.sizes['y']}",
        cells=cells,
    )


def _strip(frames: np.ndarray) -> str:
    """Frames (step, y, x, 3) side by side as a PNG data URI."""
    import imageio.v3 as iio

    buffer = io.BytesIO()
    iio.imwrite(buffer, np.concatenate(list(frames), axis=1), extension=".png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
