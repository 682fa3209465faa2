"""What users do with the rows of a LoRA Stack, each by mouse and by keyboard.

Each function does one thing by one device and asserts what has come of it. It starts with the rows
of `START`, at any zoom and size of the window.
"""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Locator, expect

from .graphs import KOHYA, PEFT, row
from .lora_editor import INK, WATER, Stack
from .steady import steady_box

Cell = Callable[[Stack], None]

INTERACTIONS = (
    "add",
    "switch",
    "switch all",
    "pick",
    "drag a strength",
    "step a strength",
    "type a strength",
    "text encoder strength",
    "reorder",
    "menu",
    "remove",
    "duplicate",
    "solo",
    "info",
    "presets",
)
DEVICES = ("mouse", "keyboard")
# What there is on the other device only.
NOT_THERE = {("drag a strength", "keyboard"), ("step a strength", "mouse")}
START = [row(PEFT, 1.0), row(KOHYA, 0.5), row(INK, 0.8, False)]
CELLS: dict[tuple[str, str], Cell] = {}


def cell(interaction: str, device: str) -> Callable[[Cell], Cell]:
    """Enters a function into the table."""

    def enter(function: Cell) -> Cell:
        CELLS[interaction, device] = function
        return function

    return enter


def in_window(stack: Stack, element: Locator) -> None:
    """Whether all of a popover can be seen, whatever the size of the window."""
    box = steady_box(element)
    size = stack.page.viewport_size
    assert size is not None
    assert 0 <= box["x"] < box["x"] + box["width"] <= size["width"]
    assert 0 <= box["y"] < box["y"] + box["height"] <= size["height"]


def focus_item(stack: Stack, name: str) -> None:
    """Walk down an open menu to an item."""
    item = stack.page.get_by_role("menu").locator("button", has_text=name)
    for _ in range(10):
        if item.evaluate("item => item === document.activeElement"):
            return
        stack.press("ArrowDown")
    raise AssertionError(f"the arrow keys never come to {name}")


def key_menu(stack: Stack, number: int, item: str) -> None:
    """Choose from a row's menu by keyboard."""
    stack.part(number, "file").focus()
    stack.press("Shift+F10")
    focus_item(stack, item)
    stack.press("Enter")


def mouse_menu(stack: Stack, number: int, item: str) -> None:
    """Choose from a row's menu, opened with its handle."""
    stack.part(number, "menu").click()
    in_window(stack, stack.page.get_by_role("menu"))
    stack.page.get_by_role("menu").get_by_text(item, exact=True).click()


@cell("add", "mouse")
def _(stack: Stack) -> None:
    stack.element.get_by_text("Add LoRA").click()
    in_window(stack, stack.page.get_by_role("dialog", name="Choose a LoRA to add"))
    stack.page.get_by_label("Folder styles").click()
    stack.page.get_by_role("option", name=WATER).click()
    assert stack.rows == [*START, row(WATER)]


@cell("add", "keyboard")
def _(stack: Stack) -> None:
    stack.element.get_by_text("Add LoRA").focus()
    stack.press("Enter")
    expect(stack.page.get_by_label("Search LoRAs")).to_be_focused()
    stack.page.keyboard.type("water")
    stack.press("Enter")
    assert stack.rows == [*START, row(WATER)]
    expect(stack.element.get_by_text("Add LoRA")).to_be_focused()


@cell("switch", "mouse")
def _(stack: Stack) -> None:
    stack.part(2, "on").click()
    stack.part(3, "on").click()
    assert stack.on == [True, False, True]


@cell("switch", "keyboard")
def _(stack: Stack) -> None:
    stack.part(2, "on").focus()
    stack.press("Space", "ArrowDown", "Enter")
    assert stack.on == [True, False, True]


@cell("switch all", "mouse")
def _(stack: Stack) -> None:
    stack.get("All LoRAs: on").click()
    assert stack.on == [True, True, True]
    stack.get("All LoRAs: on").click()
    assert stack.on == [False, False, False]


@cell("switch all", "keyboard")
def _(stack: Stack) -> None:
    stack.get("All LoRAs: on").focus()
    stack.press("Space")
    assert stack.on == [True, True, True]
    stack.press("Enter")
    assert stack.on == [False, False, False]


@cell("pick", "mouse")
def _(stack: Stack) -> None:
    stack.part(2, "file").click()
    in_window(stack, stack.page.get_by_role("dialog", name="LoRA 2: choose a file"))
    stack.page.get_by_label("Search LoRAs").click()
    stack.page.keyboard.type("ada")
    stack.page.get_by_role("option").nth(1).click()
    assert stack.rows[1] == row("people/Ada 10.safetensors", 0.5)


@cell("pick", "keyboard")
def _(stack: Stack) -> None:
    stack.part(2, "file").focus()
    stack.press("Enter")
    stack.page.keyboard.type("ada")
    stack.press("ArrowDown", "Enter")
    assert stack.rows[1] == row("people/Ada 10.safetensors", 0.5)
    expect(stack.part(2, "file")).to_be_focused()


@cell("drag a strength", "mouse")
def _(stack: Stack) -> None:
    stack.drag(stack.part(2, "strength"), 30, 0)
    stack.drag(stack.part(1, "strength"), -20, 0, keys="Shift")
    assert [r["strength"] for r in stack.rows] == [0.98, 0.8, 0.8]


@cell("step a strength", "keyboard")
def _(stack: Stack) -> None:
    stack.part(2, "strength").focus()
    stack.press("ArrowUp", "Shift+ArrowDown", "Control+ArrowUp")
    assert [r["strength"] for r in stack.rows] == [1.0, 1.045, 0.8]


@cell("type a strength", "mouse")
def _(stack: Stack) -> None:
    stack.part(2, "strength").click()
    stack.page.keyboard.type("-0.75")
    stack.part(1, "strength").click()  # which takes it
    assert [r["strength"] for r in stack.rows] == [1.0, -0.75, 0.8]


@cell("type a strength", "keyboard")
def _(stack: Stack) -> None:
    stack.part(2, "strength").focus()
    stack.press("Control+a")
    stack.page.keyboard.type("1,5")
    stack.press("Tab")
    assert [r["strength"] for r in stack.rows] == [1.0, 1.5, 0.8]
    expect(stack.part(2, "remove")).to_be_focused()


@cell("text encoder strength", "mouse")
def _(stack: Stack) -> None:
    stack.element.get_by_text("CLIP").click()
    stack.drag(stack.part(2, "text encoder strength"), 30, 0)
    assert [r["strength_clip"] for r in stack.rows] == [1.0, 0.8, 0.8]
    assert [r["strength"] for r in stack.rows] == [1.0, 0.5, 0.8]


@cell("text encoder strength", "keyboard")
def _(stack: Stack) -> None:
    stack.get("Separate text encoder strengths").focus()
    stack.press("Enter")
    stack.part(2, "strength").focus()
    stack.press("Tab")
    expect(stack.part(2, "text encoder strength")).to_be_focused()
    stack.press("ArrowDown")
    stack.press("Control+a")
    stack.page.keyboard.type("0.3")
    stack.press("Enter")
    assert [r["strength_clip"] for r in stack.rows] == [1.0, 0.3, 0.8]
    key_menu(stack, 2, "Separate text encoder strength")
    assert ["strength_clip" in r for r in stack.rows] == [True, False, True]


@cell("reorder", "mouse")
def _(stack: Stack) -> None:
    start, end = (steady_box(stack.part(number, "menu")) for number in (1, 3))
    stack.drag(stack.part(1, "menu"), 0, end["y"] - start["y"] + end["height"] / 4)
    assert stack.names == [KOHYA, INK, PEFT]


@cell("reorder", "keyboard")
def _(stack: Stack) -> None:
    stack.part(1, "on").focus()
    stack.press("Alt+ArrowDown", "Alt+ArrowDown")
    assert stack.names == [KOHYA, INK, PEFT]
    expect(stack.part(3, "on")).to_be_focused()


@cell("menu", "mouse")
def _(stack: Stack) -> None:
    mouse_menu(stack, 2, "Move up")
    assert stack.names == [KOHYA, PEFT, INK]
    mouse_menu(stack, 1, "Move down")
    assert stack.names == [PEFT, KOHYA, INK]
    mouse_menu(stack, 2, "Separate text encoder strength")
    assert ["strength_clip" in r for r in stack.rows] == [False, True, False]
    mouse_menu(stack, 1, "Remove")
    assert stack.names == [KOHYA, INK]


@cell("menu", "keyboard")
def _(stack: Stack) -> None:
    key_menu(stack, 2, "Move up")
    assert stack.names == [KOHYA, PEFT, INK]
    key_menu(stack, 1, "Move down")
    assert stack.names == [PEFT, KOHYA, INK]
    key_menu(stack, 2, "Separate text encoder strength")
    assert ["strength_clip" in r for r in stack.rows] == [False, True, False]
    key_menu(stack, 1, "Remove")
    assert stack.names == [KOHYA, INK]
    stack.press("Shift+F10", "Escape")
    expect(stack.page.get_by_role("menu")).to_have_count(0)


@cell("remove", "mouse")
def _(stack: Stack) -> None:
    stack.part(2, "remove").click()
    assert stack.rows == [START[0], START[2]]


@cell("remove", "keyboard")
def _(stack: Stack) -> None:
    stack.part(2, "file").focus()
    stack.press("Delete")
    assert stack.rows == [START[0], START[2]]
    stack.press("Enter")  # on the button of the row that took its place
    assert stack.rows == [START[0]]


@cell("duplicate", "mouse")
def _(stack: Stack) -> None:
    mouse_menu(stack, 2, "Duplicate")
    assert stack.rows == [*START[:2], START[1], START[2]]


@cell("duplicate", "keyboard")
def _(stack: Stack) -> None:
    key_menu(stack, 2, "Duplicate")
    assert stack.rows == [*START[:2], START[1], START[2]]


@cell("solo", "mouse")
def _(stack: Stack) -> None:
    mouse_menu(stack, 3, "Solo")
    assert stack.on == [False, False, True]
    mouse_menu(stack, 3, "Solo")
    assert stack.on == [True, True, True]


@cell("solo", "keyboard")
def _(stack: Stack) -> None:
    key_menu(stack, 3, "Solo")
    assert stack.on == [False, False, True]
    key_menu(stack, 3, "Solo")
    assert stack.on == [True, True, True]


def copied(stack: Stack) -> str:
    """What the clipboard holds."""
    return stack.page.evaluate("() => navigator.clipboard.readText()")


@cell("info", "mouse")
def _(stack: Stack) -> None:
    stack.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    mouse_menu(stack, 3, "Info")
    dialog = stack.page.get_by_role("dialog", name=f"About {INK}")
    expect(dialog.get_by_role("heading", name="Ink drawings")).to_be_visible()
    in_window(stack, dialog)
    dialog.get_by_label("Copy ink drawing").click()
    expect(dialog.get_by_text("Copied")).to_be_visible()
    assert copied(stack) == "ink drawing"
    dialog.get_by_label("Close").click()
    expect(dialog).to_have_count(0)
    assert stack.rows == START


@cell("info", "keyboard")
def _(stack: Stack) -> None:
    stack.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    key_menu(stack, 3, "Info")
    dialog = stack.page.get_by_role("dialog", name=f"About {INK}")
    expect(dialog.get_by_role("heading", name="Ink drawings")).to_be_visible()
    copy = dialog.get_by_label("Copy brush pen")
    for _ in range(6):
        if copy.evaluate("copy => copy === document.activeElement"):
            break
        stack.press("Tab")
    expect(copy).to_be_focused()
    stack.press("Enter")
    expect(dialog.get_by_text("Copied")).to_be_visible()
    assert copied(stack) == "brush pen"
    stack.press("Escape")
    expect(dialog).to_have_count(0)
    expect(stack.part(3, "file")).to_be_focused()


@cell("presets", "mouse")
def _(stack: Stack) -> None:
    stack.library.stacks = {"old": [row(WATER, 0.4)]}
    stack.element.get_by_text("Stacks").click()
    in_window(stack, stack.page.get_by_role("dialog", name="Stacks"))
    stack.page.get_by_label("Name of the stack").click()
    stack.page.keyboard.type("mine")
    stack.page.get_by_role("button", name="Save", exact=True).click()
    expect(stack.page.get_by_label("Load mine")).to_be_visible()
    assert stack.library.stacks["mine"] == START
    stack.page.get_by_label("Delete mine").click()
    stack.page.get_by_label("Delete mine").click()
    expect(stack.page.get_by_label("Load mine")).to_have_count(0)
    stack.page.get_by_label("Load old").click()
    assert stack.rows == [row(WATER, 0.4)]
    assert list(stack.library.stacks) == ["old"]


@cell("presets", "keyboard")
def _(stack: Stack) -> None:
    stack.library.stacks = {"old": [row(WATER, 0.4)]}
    stack.get("Stacks").focus()
    stack.press("Enter")
    expect(stack.page.get_by_label("Load old")).to_be_visible()
    stack.page.keyboard.type("new")
    stack.press("Enter")
    expect(stack.page.get_by_label("Load new")).to_be_visible()
    assert stack.library.stacks["new"] == START
    expect(stack.page.get_by_label("Name of the stack")).to_be_focused()
    stack.press("Shift+Tab", "Shift+Tab", "Shift+Tab")  # over Delete and Export
    expect(stack.page.get_by_label("Load old")).to_be_focused()
    stack.press("Enter")
    assert stack.rows == [row(WATER, 0.4)]
    expect(stack.get("Stacks")).to_be_focused()
    stack.press("Enter")
    expect(stack.page.get_by_label("Load old")).to_be_visible()
    stack.press("Shift+Tab")
    expect(stack.page.get_by_label("Delete old")).to_be_focused()
    stack.press("Enter", "Enter")
    expect(stack.page.get_by_label("Load old")).to_have_count(0)
    assert list(stack.library.stacks) == ["new"]
