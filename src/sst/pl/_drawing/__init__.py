"""What every figure shares: style, colours, labels."""

from __future__ import annotations

from ._measures import (
    change_label,
    default_features,
    edit_target,
    feature_column,
    feature_label,
    grouping,
    key_label,
    measured_keys,
    sample,
)
from ._style import (
    GREY,
    PALETTE,
    bracket,
    channel_colors,
    finish,
    group_colors,
    lighten,
    make_axes,
    palette,
    show_image,
    stars,
    style,
    to_rgb,
    violin,
)

__all__ = [
    "GREY",
    "PALETTE",
    "bracket",
    "change_label",
    "channel_colors",
    "default_features",
    "edit_target",
    "feature_column",
    "feature_label",
    "finish",
    "group_colors",
    "grouping",
    "key_label",
    "lighten",
    "make_axes",
    "measured_keys",
    "palette",
    "sample",
    "show_image",
    "stars",
    "style",
    "to_rgb",
    "violin",
]
