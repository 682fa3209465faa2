"""The tests of what runs in ComfyUI, on a card with dynamic VRAM that is none.

`VIVACE_DYNAMIC=1` runs all tests with models so; more (`VIVACE_DYNAMIC=6`) are MB of the card.
A test that is about it asks for the fixture `dynamic_card`; one that is marked `own_loading` loads
a model in another way, or calls its layers by hand, and never runs so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from vivace.devkit.doubles.dynamic_vram.dynamic_vram import CAPACITY, MB, DynamicVram, dynamic_vram

ASKED = os.environ.get("VIVACE_DYNAMIC", "")
ROOMY = ASKED in ("", "0", "1")  # the card holds a small model
ROOM = {"all of it": CAPACITY, "a third of it": 6 * MB}  # of a small model in float32


def skip_without_it() -> None:
    """Skip a test on a ComfyUI before 0.30, whose dynamic VRAM works otherwise than the double."""
    from comfy.model_patcher import ModelPatcher

    if not hasattr(ModelPatcher, "deepclone_multigpu"):
        needed = "dynamic VRAM as of 0.30"
        pytest.skip(f"this ComfyUI has no {needed}")


@contextmanager
def as_asked() -> Iterator[DynamicVram | None]:
    """Dynamic VRAM if the environment says so."""
    if ASKED in ("", "0"):
        yield None
        return
    with dynamic_vram(CAPACITY if ASKED == "1" else int(ASKED) * MB) as running:
        yield running
