from __future__ import annotations

import numpy as np
import pandas as pd

from sst.pl import training


def test_inversion_shows_psnr_and_ssim() -> None:
    index = pd.Index([10, 20, 30], name="iteration")
    history = pd.DataFrame(
        {
            "inversion/loss": [3.0, 2.0, 1.0],
            "psnr": [18.0, np.nan, 22.0],
            "ssim": [0.3, np.nan, 0.6],
            "psnr DAPI": [17.0, np.nan, 20.0],
            "distance": [30.0, np.nan, 20.0],
        },
        index=index,
    )
    left, right = training(history)
    assert left.get_lines()
    assert right.get_ylabel() == "PSNR (dB)"
    whole = right.get_lines()[0]
    assert list(whole.get_xdata()) == [10, 30]
    assert list(whole.get_ydata()) == [18, 22]
    twin = next(a for a in right.figure.axes if a.get_ylabel() == "SSIM")
    assert list(twin.get_lines()[0].get_ydata()) == [0.3, 0.6]


def test_clip_shows_retrieval_against_chance() -> None:
    columns = {"clip/loss": [3.0, 2.0], "chance_top10": [0.1, 0.1]}
    columns |= {f"{a}_to_{b}_top10": [0.2, 0.5] for a, b in (("image", "expression"), ("expression", "image"))}
    _, right = training(pd.DataFrame(columns, index=pd.Index([1, 2], name="iteration")))
    assert [list(line.get_ydata()) for line in right.get_lines()] == [[20, 50], [20, 50], [10, 10]]
