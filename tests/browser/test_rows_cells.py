"""Each interaction with a LoRA Stack's rows by each device, in both renderers, sizes and zooms."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page
from support.editor import shoot
from support.graphs import row
from support.lora_editor import INK, Stack
from support.row_cells import CELLS, DEVICES, INTERACTIONS, NOT_THERE, START

SOME = ("pick", "reorder", "menu", "presets")
WITHOUT_MAP = ".minimap-main-container, [data-testid^=minimap] { display: none !important; }"
ALL = sorted(CELLS)


@pytest.fixture
def small_window(page: Page) -> Iterator[None]:
    before = page.viewport_size
    assert before is not None
    # The editor's map covers a good part of so small a window, and of the node.
    page.add_style_tag(content=WITHOUT_MAP)
    page.set_viewport_size({"width": 800, "height": 600})
    yield
    page.set_viewport_size(before)


def names(cells: list[tuple[str, str]]) -> list[str]:
    return [" by ".join(cell).replace(" ", "-") for cell in cells]


def test_the_table_has_every_cell() -> None:
    assert set(CELLS) | NOT_THERE == set(itertools.product(INTERACTIONS, DEVICES))
    assert not set(CELLS) & NOT_THERE


@pytest.mark.long
@pytest.mark.parametrize("cell", ALL, ids=names(ALL))
def test_an_interaction(stack: Stack, cell: tuple[str, str]) -> None:
    stack.show(*START)
    CELLS[cell](stack)


@pytest.mark.usefixtures("small_window")
@pytest.mark.parametrize("cell", ALL, ids=names(ALL))
def test_an_interaction_in_a_small_window(
    stack: Stack, renderer: str, cell: tuple[str, str]
) -> None:
    stack.show(*START)
    CELLS[cell](stack)
    shoot(stack.page, f"rows-{renderer}-800-{cell[0]}-{cell[1]}")


ZOOMED = [(name, device) for name in SOME for device in DEVICES] + [("drag a strength", "mouse")]


@pytest.mark.long
@pytest.mark.parametrize("zoom", [0.5, 2])
@pytest.mark.parametrize("cell", ZOOMED, ids=names(ZOOMED))
def test_an_interaction_at_a_zoom(
    stack: Stack, renderer: str, cell: tuple[str, str], zoom: float
) -> None:
    stack.show(*START)
    stack.zoom(zoom, (120 / zoom - 60, 80 / zoom))
    CELLS[cell](stack)
    shoot(stack.page, f"rows-{renderer}-zoom-{zoom}")


def test_tab_comes_to_every_control_in_order(stack: Stack) -> None:
    stack.show(row(INK), {**row(INK, 0.5), "strength_clip": 0.2})
    stack.get("All LoRAs: on").focus()
    label = "() => document.activeElement.ariaLabel || document.activeElement.textContent"
    found = []
    for _ in range(15):
        found.append(stack.page.evaluate(label))
        stack.press("Tab")
    first = [f"LoRA 1: {part}" for part in ("menu", "on", f"file, {INK}", "strength", "remove")]
    second = [part.replace("1", "2") for part in first]
    second.insert(4, "LoRA 2: text encoder strength")
    head = ["All LoRAs: on", "Separate text encoder strengths"]
    assert found == [*head, *first, *second, "Add LoRA", "Stacks"]
