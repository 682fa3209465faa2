"""What the tests do in the real editor, in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from vivace.devkit.rig.browser import browser_program
from vivace.devkit.rig.browser import open_editor as browser_open_editor
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.layout import OUT
from vivace.devkit.rig.server import ComfyServer

SCREENSHOTS = OUT / "screenshots"
WORKFLOW: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "ui_workflow.json").read_text()
)


def find_browser() -> str:
    found = browser_program()
    if not found:
        pytest.fail("No Chromium: `python3 dev.py test` fetches one; --no-browser goes without")
    return found


def open_editor(browser: Browser, server: ComfyServer, language: str = "en") -> Page:
    """A new page with the editor, with our nodes registered."""
    return browser_open_editor(browser, server.url, language)


@contextmanager
def editor_in(language: str, browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """The editor in another language, on a page of its own."""
    opened = open_editor(browser, server, language)
    try:
        yield opened
    finally:
        opened.close()
        ComfyClient(server.url).post("/settings", {"Comfy.Locale": "en"})  # the server keeps it


def says_missing(page: Page) -> bool:
    return "missing node" in page.inner_text("body").lower()


def shoot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def load(page: Page, workflow: dict[str, Any], kept: int | None = None) -> None:
    """Open a workflow, of which `kept` nodes stay; None: all."""
    count = len(workflow["nodes"]) if kept is None else kept
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_function("count => app.graph.nodes.length === count", arg=count)
    page.wait_for_timeout(500)


def prompt_of(page: Page) -> dict[str, Any]:
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def stack_of(prompt: dict[str, Any]) -> Any:
    return next(n for n in prompt.values() if n["class_type"] == "VivaceLoraStack")["inputs"]
