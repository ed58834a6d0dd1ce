"""Windows around cells: where they are, what is in them."""

from __future__ import annotations

from ._cut import active_client
from ._options import WindowOptions
from ._out import Segmented, open_output
from ._pair import pair_cells
from ._paste import on_crop_scale, paste_crops
from ._pixels import cut_windows
from ._plan import Plan, full_resolution, match_images, pick_channels, plan_crops
from ._region import Region, cut_region, find_region, paint_region, pixels_in, read_tissue, rescale_like
from ._transform import to_system
from ._windows import count_windows, index_transcripts, window_corners

__all__ = [
    "Plan",
    "Region",
    "Segmented",
    "WindowOptions",
    "active_client",
    "count_windows",
    "cut_region",
    "cut_windows",
    "find_region",
    "full_resolution",
    "index_transcripts",
    "match_images",
    "on_crop_scale",
    "open_output",
    "paint_region",
    "pair_cells",
    "paste_crops",
    "pick_channels",
    "pixels_in",
    "plan_crops",
    "read_tissue",
    "rescale_like",
    "to_system",
    "window_corners",
]
