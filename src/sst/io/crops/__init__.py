"""Windows around cells: where they are, what is in them."""

from __future__ import annotations

from ._cut import Job, run_jobs
from ._out import MemoryOutput, Segmented, StoreOutput
from ._paste import on_crop_scale, paste_crops
from ._pixels import cut_windows
from ._plan import Plan, full_resolution, match_images, pick_channels, plan_crops
from ._region import Region, cut_region, find_region, paint_region, read_tissue, rescale_like
from ._spool import Spool, make_grids, spool_points
from ._transform import to_system
from ._windows import count_windows, index_transcripts, window_corners

__all__ = [
    "Job",
    "MemoryOutput",
    "Plan",
    "Region",
    "Segmented",
    "Spool",
    "StoreOutput",
    "count_windows",
    "cut_region",
    "cut_windows",
    "find_region",
    "full_resolution",
    "index_transcripts",
    "make_grids",
    "match_images",
    "on_crop_scale",
    "paint_region",
    "paste_crops",
    "pick_channels",
    "plan_crops",
    "read_tissue",
    "rescale_like",
    "run_jobs",
    "spool_points",
    "to_system",
    "window_corners",
]
