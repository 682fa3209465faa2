"""Small nodes of comfyui-llm-toolkit -> Blank Image and Image Is Empty?"""

from __future__ import annotations

import re
from typing import Any

from .rules import Field, NotMigratable, Rule, as_integer
from .widgets import Layout, integer, text

_HEX = re.compile(r"#?([0-9a-fA-F]{6})(?:[0-9a-fA-F]{2})?")
_SIZE = as_integer(1, 16384)
_OFF = -1.0


def _color(value: Any, _: list[str]) -> str:
    """Without the alpha, which that node took and did not use."""
    found = _HEX.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise NotMigratable("not a colour as #rrggbb")
    return f"#{found[1]}"


TOOLKIT_RULES = (
    Rule(
        ("BlankImage",),
        "VivaceBlankImage",
        (Layout((integer("width"), integer("height"), text("color"))),),
        (
            Field("width", "width", _SIZE),
            Field("height", "height", _SIZE),
            Field("color", "color", _color),
        ),
        {"batch_size": 1},
    ),
    Rule(
        ("CheckImageEmpty",),
        "VivaceImageIsEmpty",
        (Layout(()),),
        (Field("image", "image", lambda value, _: value),),
        # That node looked for a missing image only, never at the pixels.
        {
            "uniform_within": _OFF,
            "black_below": _OFF,
            "white_above": _OFF,
            "transparent_above": _OFF,
        },
        outputs={0: 0, 1: 2},
    ),
)
