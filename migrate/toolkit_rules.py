"""Small nodes of comfyui-llm-toolkit -> Blank Image, Image Is Empty? and Preview If."""

from __future__ import annotations

import re
from typing import Any

from .rules import (
    Field,
    NewNode,
    NotMigratable,
    OldNode,
    Rule,
    as_integer,
    as_switch,
    as_text,
)
from .widgets import Layout, integer, switch, text

_HEX = re.compile(r"#?([0-9a-fA-F]{6})(?:[0-9a-fA-F]{2})?")
_SIZE = as_integer(1, 16384)
_OFF = -1.0


def _color(value: Any, _: list[str]) -> str:
    """Without the alpha, which that node took and did not use."""
    found = _HEX.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise NotMigratable("not a colour as #rrggbb")
    return f"#{found[1]}"


def _needs_image(old: OldNode, new: NewNode) -> None:
    if "image" not in old.linked:
        raise NotMigratable("without an image it makes a blank one; use a Blank Image of ours")
    new.notes.append("a missing image is no longer replaced by a blank one")


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
    Rule(
        ("PreviewImageLogic",),
        "VivacePreviewIf",
        (
            Layout(
                (
                    switch("save_image"),
                    integer("width"),
                    integer("height"),
                    text("color"),
                    text("file_name"),
                )
            ),
        ),
        (
            Field("save_image", "condition", as_switch),
            Field("file_name", "filename_prefix", as_text),
            Field("image", "image", lambda value, _: value),
        ),
        # That node showed nothing, and handed its image on whether it saved it or not.
        {"action": "save", "otherwise": "pass on"},
        ignored=frozenset(("width", "height", "color")),  # of the blank image only
        finish=_needs_image,
    ),
)
