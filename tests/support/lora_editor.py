"""A LoRA Stack in the real editor, and a library of LoRA files that the server answers with."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from playwright.sync_api import Locator, Page, Route

from .graphs import KOHYA, PEFT, row
from .steady import steady_box, wait_in_its_node

MISSING = "gone.safetensors"
INK, FLAT, WATER = "styles/ink.safetensors", "styles/anime/flat.safetensors", "styles/water.pt"
NAMES = [PEFT, KOHYA, INK, FLAT, WATER, "people/Ada 10.safetensors", "people/Ada 9.safetensors"]
WITH_PREVIEW = {INK, FLAT}
PREVIEW = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="200" height="260">'
    '<rect width="200" height="260" fill="#264"/><circle cx="100" cy="110" r="60" fill="#fa3"/>'
    "</svg>"
)
INFO: dict[str, Any] = {
    "name": INK,
    "title": "Ink drawings",
    "base_model": "Qwen-Image",
    "architecture": "qwen_image",
    "format": "LoRA",
    "rank": 16,
    "rank_lowest": 4,
    "alpha": 8.0,
    "modules": 238,
    "modules_total": 240,
    "trigger_words": ["ink drawing", "brush pen"],
    "tags": [["ink", 120], ["paper", 64]],
    "notes": "Best at 0.7.",
    "size": 3 * 2**20,
    "problems": ["2 tensors are unknown and would be ignored."],
    "warnings": ["the header says rank 8, the factors have rank 16"],
}
LITTLE: dict[str, Any] = dict.fromkeys(INFO) | {
    "modules": 0,
    "modules_total": 0,
    "trigger_words": [],
    "tags": [],
    "size": 2**20,
    "problems": [],
    "warnings": [],
}

SHOW = """rows => {
    const node = LiteGraph.createNode("VivaceLoraStack");
    node.pos = [60, 40];
    app.graph.add(node);
    node.widgets.find(w => w.name === "rows").value = rows;
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [120, 80];
    app.canvas.setDirty(true, true);
}"""
ZOOM = """([scale, ...offset]) => {
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = offset;
    app.canvas.setDirty(true, true);
}"""
RECORD = "() => { app.canvas.emitBeforeChange(); app.canvas.emitAfterChange(); }"
VALUES = """() => app.graph.nodes.filter(n => n.comfyClass === "VivaceLoraStack")
    .map(n => n.widgets.find(w => w.name === "rows").value)"""


class Library:
    """Answers the routes of the LoRA library in the server's place; counts what is asked."""

    def __init__(self, page: Page) -> None:
        self.names = list(NAMES)
        self.stacks: dict[str, Any] = {}
        self.problems: list[str] = []
        self.refuses = ""
        self.listed = 0
        self.works = True
        page.route("**/api/vivace/**", self._answer)

    def _answer(self, route: Route) -> None:
        url = urlparse(route.request.url)
        path = unquote(url.path).removeprefix("/api/vivace/")
        name = parse_qs(url.query).get("name", [""])[0]
        if not self.works:
            route.fulfill(status=404, body="404: Not Found")
        elif path == "loras":
            self.listed += 1
            loras = [
                {"name": n, "preview": n in WITH_PREVIEW, "modified": 1.7e9} for n in self.names
            ]
            route.fulfill(json={"loras": loras})
        elif path == "lora/info":
            route.fulfill(json=INFO if name == INK else LITTLE | {"name": name})
        elif path == "lora/preview":
            found = name in WITH_PREVIEW
            route.fulfill(status=200 if found else 404, body=PREVIEW, content_type="image/svg+xml")
        else:
            self._answer_stacks(route, path)

    def _answer_stacks(self, route: Route, path: str) -> None:
        name = path.removeprefix("stacks").removeprefix("/")
        if self.refuses:
            route.fulfill(status=400, json={"error": self.refuses})
            return
        if path == "stack_bundle":
            sent = json.loads(route.request.post_data or "")["vivace_stacks"]
            replace = "existing=replace" in route.request.url
            self.stacks = self.stacks | sent if replace else sent | self.stacks
        elif route.request.method == "PUT":
            self.stacks[name] = json.loads(route.request.post_data or "")
        elif route.request.method == "DELETE":
            del self.stacks[name]
        route.fulfill(json={"stacks": self.stacks, "problems": self.problems})


class Stack:
    """The only LoRA Stack of an editor's graph."""

    def __init__(self, page: Page, library: Library) -> None:
        self.page = page
        self.library = library
        self.element = page.locator(".vivace-rows:visible")

    def show(self, *rows: dict[str, Any]) -> None:
        """A graph with nothing but a stack with these rows."""
        self.page.evaluate("() => app.graph.clear()")
        self.page.evaluate(SHOW, list(rows))
        self.element.wait_for()
        wait_in_its_node(self.element)
        self.page.evaluate(RECORD)

    def zoom(self, scale: float, offset: tuple[float, float] = (120, 80)) -> None:
        """Show the canvas at a scale and a place, with the rows where they belong."""
        self.page.evaluate(ZOOM, [scale, *offset])
        for element in self.element.all():
            wait_in_its_node(element)

    def refresh(self) -> None:
        """What the editor's refresh command does."""
        self.page.evaluate("() => app.refreshComboInNodes()")

    @property
    def rows(self) -> list[dict[str, Any]]:
        (rows,) = self.page.evaluate(VALUES)
        return rows

    @property
    def names(self) -> list[str]:
        return [row["lora"] for row in self.rows]

    @property
    def on(self) -> list[bool]:
        return [row["on"] for row in self.rows]

    def get(self, label: str) -> Locator:
        return self.element.get_by_label(label)

    def part(self, number: int, part: str) -> Locator:
        return self.get(f"LoRA {number}: {part}")

    def drag(self, start: Locator, x: float, y: float, *, keys: str | None = None) -> None:
        """Press at the middle of an element, move by that many pixels in steps, release."""
        box = steady_box(start)
        left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(left, top)
        self.page.mouse.down()
        if keys:
            self.page.keyboard.down(keys)
        self.page.mouse.move(left + x, top + y, steps=5)
        self.page.mouse.up()
        if keys:
            self.page.keyboard.up(keys)

    def menu(self, number: int, item: str) -> None:
        """Choose from a row's menu."""
        self.part(number, "file").click(button="right")
        self.page.get_by_role("menu").get_by_text(item, exact=True).click()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def undo(self, key: str = "Control+z") -> None:
        self.press(key)
        self.page.wait_for_timeout(400)  # the editor loads the older graph

    def options(self) -> list[str]:
        """What the open picker lists."""
        found = self.page.get_by_role("option").all()
        return [option.get_attribute("aria-label") or "" for option in found]


def three(*on: bool) -> list[dict[str, Any]]:
    """Three rows, on or off."""
    states = on or (True, True, True)
    return [row(name, 1.0, state) for name, state in zip((PEFT, KOHYA, INK), states, strict=True)]
