"""What the tests do in the real editor, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from conftest import missing
from playwright.sync_api import Browser, Page
from vivace.devkit.client import ComfyClient
from vivace.devkit.layout import OUT
from vivace.devkit.server import ComfyServer

SCREENSHOTS = OUT / "screenshots"
WORKFLOW: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "ui_workflow.json").read_text()
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def find_browser() -> str:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
    found = os.environ.get("VIVACE_BROWSER") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        missing("No Chromium: install it, or name its program in VIVACE_BROWSER")
    return str(found)


def open_editor(browser: Browser, server: ComfyServer, language: str = "en") -> Page:
    """A new page with the editor, with our nodes registered."""
    # Without this, a new user is shown the templates before the graph.
    settings = {"Comfy.TutorialCompleted": True, "Comfy.Locale": language}
    ComfyClient(server.url).post("/settings", settings)
    opened = browser.new_page(viewport={"width": 1500, "height": 900})
    opened.goto(server.url)
    opened.wait_for_function(
        "() => window.app?.graph && !!window.LiteGraph?.registered_node_types.VivaceLoraStack",
        timeout=90_000,
    )
    # The editor opens its first workflow a moment after it has registered the nodes.
    opened.wait_for_function("() => app.graph.nodes.length > 0")
    return opened


def shoot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def load(page: Page, workflow: dict[str, Any]) -> None:
    page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
    page.wait_for_function("count => app.graph.nodes.length === count", arg=len(workflow["nodes"]))
    page.wait_for_timeout(500)


def prompt_of(page: Page) -> dict[str, Any]:
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def stack_of(prompt: dict[str, Any]) -> Any:
    return next(n for n in prompt.values() if n["class_type"] == "VivaceLoraStack")["inputs"]
