"""The picture of the packages is that of their imports."""

from __future__ import annotations

from collections import Counter

from vivace.devkit import architecture


def test_the_picture_is_drawn_from_the_imports() -> None:
    remedy = "run `.dev/venv/bin/python -m vivace.devkit.architecture`"
    drawn = architecture.draw(architecture.layers(), architecture.imports())
    assert architecture.PICTURE.read_text(encoding="utf-8") == drawn, remedy


def test_arrows_point_down_only() -> None:
    level = {name: number for number, row in enumerate(architecture.layers()) for name in row}
    found = architecture.imports()
    assert found
    assert all(level[start] < level[end] for start, end in found)


def test_a_box_and_an_arrow_for_each() -> None:
    drawn = architecture.draw([["nodes"], ["lora"]], Counter({("nodes", "lora"): 3}))
    assert drawn.count("<rect") == 3  # the background, too
    assert "nodes imports lora: 3 modules" in drawn
