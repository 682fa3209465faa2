"""The rows of a LoRA Stack in the real editor, by mouse and by keyboard, in both renderers."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect
from support.editor import shoot
from support.graphs import KOHYA, PEFT, row
from support.lora_editor import FLAT, INK, MISSING, Stack, three
from support.steady import wait_for_canvas


def test_rows_are_switched_one_by_one_and_all_at_once(stack: Stack) -> None:
    stack.show(*three(True, False, True))
    every = stack.get("All LoRAs: on")
    expect(every).to_have_attribute("aria-checked", "mixed")
    stack.part(1, "on").uncheck()
    assert stack.on == [False, False, True]
    every.click()
    assert stack.on == [True, True, True]
    expect(every).to_have_attribute("aria-checked", "true")
    every.focus()
    stack.press("Space")
    assert stack.on == [False, False, False]
    stack.part(2, "on").focus()
    stack.press("Enter")
    assert stack.on == [False, True, False]


def test_a_strength_is_typed(stack: Stack) -> None:
    stack.show(row(INK, 0.8))
    strength = stack.part(1, "strength")
    expect(strength).to_have_value("0.80")
    strength.click()
    stack.page.keyboard.type("-1,25")
    stack.press("Enter")
    assert stack.rows == [row(INK, -1.25)]
    stack.page.keyboard.type("nonsense")
    stack.press("Tab")
    expect(strength).to_have_value("-1.25")
    strength.click()
    stack.page.keyboard.type("3")
    stack.press("Escape")
    assert stack.rows == [row(INK, -1.25)]


@pytest.mark.parametrize(
    ("keys", "strength"),
    [
        (["ArrowUp"], 1.05),
        (["ArrowDown", "ArrowDown"], 0.9),
        (["Shift+ArrowUp"], 1.005),
        (["Control+ArrowDown"], 0.5),
    ],
)
def test_arrow_keys_step_a_strength(stack: Stack, keys: list[str], strength: float) -> None:
    stack.show(row(INK, 1.0))
    stack.part(1, "strength").focus()
    stack.press(*keys)
    assert stack.rows == [row(INK, strength)]
    expect(stack.part(1, "strength")).to_have_attribute("aria-valuenow", f"{strength:g}")


@pytest.mark.parametrize(
    ("pixels", "keys", "strength"),
    [(40, None, 1.4), (-30, None, 0.7), (40, "Shift", 1.04), (10, "Control", 2.0)],
)
def test_a_strength_is_dragged(
    stack: Stack, pixels: int, keys: str | None, strength: float
) -> None:
    stack.show(row(INK, 1.0))
    stack.drag(stack.part(1, "strength"), pixels, 0, keys=keys)
    assert stack.rows == [row(INK, strength)]


def test_a_drag_is_the_same_at_any_zoom(stack: Stack) -> None:
    stack.show(*three())
    for zoom in (0.8, 1.7):
        stack.zoom(zoom)
        stack.drag(stack.part(1, "strength"), 20, 0)
        stack.drag(stack.part(1, "menu"), 0, 62 * zoom)
        shoot(stack.page, f"rows-zoom-{zoom}")
    assert [(r["lora"], r["strength"]) for r in stack.rows] == [
        (INK, 1.0),
        (PEFT, 1.2),
        (KOHYA, 1.2),
    ]


def test_text_encoder_strengths_come_on_demand(stack: Stack, renderer: str) -> None:
    stack.show(row(INK, 0.8), row(FLAT, 0.5))
    expect(stack.part(1, "text encoder strength")).to_have_count(0)
    stack.menu(1, "Separate text encoder strength")
    assert stack.rows == [{**row(INK, 0.8), "strength_clip": 0.8}, row(FLAT, 0.5)]
    clip = stack.part(1, "text encoder strength")
    clip.focus()
    stack.press("Control+ArrowUp")
    assert stack.rows[0] == {**row(INK, 0.8), "strength_clip": 1.3}
    shoot(stack.page, f"rows-{renderer}-clip")
    stack.get("Separate text encoder strengths").click()
    assert [r.get("strength_clip") for r in stack.rows] == [1.3, 0.5]
    stack.get("Separate text encoder strengths").click()
    assert stack.rows == [row(INK, 0.8), row(FLAT, 0.5)]


def test_rows_are_dragged_to_another_place(stack: Stack, renderer: str) -> None:
    stack.show(*three())
    stack.drag(stack.part(1, "menu"), 5, 36)
    assert stack.names == [KOHYA, PEFT, INK]
    expect(stack.page.get_by_role("menu")).to_have_count(0)  # a drag is no click
    stack.drag(stack.part(3, "menu"), 0, -200)
    assert stack.names == [INK, KOHYA, PEFT]
    stack.drag(stack.part(2, "menu"), 0, 8)
    assert stack.names == [INK, KOHYA, PEFT]
    stack.part(1, "menu").hover()
    stack.page.mouse.down()
    stack.part(3, "file").hover()
    shoot(stack.page, f"rows-{renderer}-drag")
    stack.press("Escape")
    stack.page.mouse.up()
    assert stack.names == [INK, KOHYA, PEFT]
    expect(stack.page.get_by_role("menu")).to_have_count(0)


def test_alt_and_arrows_move_a_row_with_the_focus(stack: Stack) -> None:
    stack.show(*three())
    stack.part(1, "strength").focus()
    stack.press("Alt+ArrowDown", "Alt+ArrowDown", "Alt+ArrowDown")
    assert stack.names == [KOHYA, INK, PEFT]
    expect(stack.part(3, "strength")).to_be_focused()
    stack.part(3, "file").focus()
    stack.press("Alt+ArrowUp")
    assert stack.names == [KOHYA, PEFT, INK]
    expect(stack.part(2, "file")).to_be_focused()


def test_arrows_and_delete_work_between_rows(stack: Stack) -> None:
    stack.show(*three())
    stack.part(1, "on").focus()
    stack.press("ArrowDown")
    expect(stack.part(2, "on")).to_be_focused()
    stack.press("Delete")
    assert stack.names == [PEFT, INK]
    assert stack.page.evaluate("() => app.graph.nodes.length") == 1  # the node stays
    expect(stack.part(2, "remove")).to_be_focused()
    stack.press("Delete", "Delete")
    assert stack.rows == []
    expect(stack.get("Add LoRA").or_(stack.element.get_by_text("Add LoRA")).first).to_be_focused()


def test_the_menu_of_a_row(stack: Stack, renderer: str) -> None:
    stack.show(*three(True, True, False))
    stack.menu(2, "Move up")
    assert stack.names == [KOHYA, PEFT, INK]
    stack.menu(1, "Move down")
    assert stack.names == [PEFT, KOHYA, INK]
    stack.menu(1, "Duplicate")
    assert stack.names == [PEFT, PEFT, KOHYA, INK]
    stack.menu(2, "Remove")
    stack.menu(3, "Solo")
    assert stack.on == [False, False, True]
    stack.menu(3, "Solo")
    assert stack.on == [True, True, True]
    stack.part(2, "menu").click()
    shoot(stack.page, f"rows-{renderer}-menu")


def test_the_menu_by_keyboard(stack: Stack) -> None:
    stack.show(*three())
    stack.part(2, "file").focus()
    stack.press("Shift+F10")
    menu = stack.page.get_by_role("menu")
    expect(menu.get_by_role("menuitem", name="Info")).to_be_focused()
    stack.press("End")
    expect(menu.get_by_role("menuitem", name="Remove")).to_be_focused()
    stack.press("ArrowUp", "Enter")
    assert stack.names == [PEFT, KOHYA, KOHYA, INK]
    expect(stack.part(2, "file")).to_be_focused()
    stack.press("Shift+F10", "s", "Enter")
    assert stack.on == [False, True, False, False]
    stack.press("Shift+F10", "Escape")
    expect(menu).to_have_count(0)
    expect(stack.part(2, "file")).to_be_focused()


def test_a_missing_file_shows(stack: Stack, renderer: str) -> None:
    stack.show(row(INK), row(MISSING))
    missing = stack.part(2, f"file, {MISSING}, missing")
    expect(missing).to_have_class(re.compile("vivace-rows-missing"))
    expect(missing).to_have_attribute("title", re.compile("is not in ComfyUI's loras folders"))
    expect(stack.part(1, "file")).not_to_have_class(re.compile("vivace-rows-missing"))
    shoot(stack.page, f"rows-{renderer}-missing")
    stack.library.names.append(MISSING)
    stack.refresh()
    expect(stack.part(2, "file")).not_to_have_class(re.compile("vivace-rows-missing"))


HEIGHTS = """() => ({
    node: app.graph.nodes[0].size[1],
    space: document.querySelector(".vivace-rows").parentElement.getBoundingClientRect().bottom
        - document.querySelector(".vivace-rows-foot").getBoundingClientRect().bottom,
})"""


def test_the_node_follows_the_number_of_rows(stack: Stack, renderer: str) -> None:
    stack.show(row(INK))
    before = stack.page.evaluate(HEIGHTS)
    for count in (1, 2, 3, 4):
        stack.menu(1, "Duplicate")
        expect(stack.element.get_by_role("listitem")).to_have_count(1 + count)
        wait_for_canvas(stack.page)
        now = stack.page.evaluate(HEIGHTS)
        assert now["node"] == pytest.approx(before["node"] + 30 * count, abs=1)
        assert now["space"] == pytest.approx(before["space"], abs=1)
    for _ in range(4):
        stack.part(1, "remove").click()
    wait_for_canvas(stack.page)
    assert stack.page.evaluate(HEIGHTS) == pytest.approx(before, abs=1)
    shoot(stack.page, f"rows-{renderer}-height")


def test_the_wheel_over_rows_zooms_the_canvas(stack: Stack) -> None:
    stack.show(*three())
    stack.part(1, "strength").hover()
    stack.page.mouse.wheel(0, -200)
    stack.page.wait_for_function("() => app.canvas.ds.scale > 1")
    assert stack.rows == three()


def test_the_light_theme(stack: Stack, renderer: str) -> None:
    colour = "() => getComputedStyle(document.querySelector('.vivace-rows')).color"
    setting = "id => app.extensionManager.setting.set('Comfy.ColorPalette', id)"
    stack.show(row(INK, 0.8), row(MISSING), {**row(FLAT, 1, False), "strength_clip": 0.5})
    dark = stack.page.evaluate(colour)
    stack.page.evaluate(setting, "light")
    try:
        stack.page.wait_for_function(f"dark => ({colour})() !== dark", arg=dark)
        stack.part(1, "file").click()
        shoot(stack.page, f"rows-{renderer}-light")
        stack.press("Escape")
    finally:
        stack.page.evaluate(setting, "dark")


def test_controls_have_roles_and_names(stack: Stack) -> None:
    stack.show(row(INK))
    item = stack.element.get_by_role("list", name="LoRAs").get_by_role("listitem")
    for role, name in (
        ("switch", "LoRA 1: on"),
        ("spinbutton", "LoRA 1: strength"),
        ("button", f"LoRA 1: file, {INK}"),
        ("button", "LoRA 1: menu"),
        ("button", "LoRA 1: remove"),
    ):
        expect(item.get_by_role(role, name=name, exact=True)).to_have_count(1)  # pyright: ignore[reportArgumentType]
