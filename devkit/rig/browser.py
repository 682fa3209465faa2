"""The editor in a Chromium that is there; `browser_install.py` fetches one."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from .client import ComfyClient
from .layout import CACHE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
BROWSERS = CACHE / "browsers"
"""Where Playwright puts the browser that `dev.py test` has it fetch."""


def browser_program() -> str | None:
    """A Chromium: named by `VIVACE_BROWSER`, on the path, or fetched by Playwright; else None."""
    # The first has no windows at all, and takes less of a processor to open the editor.
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
    found = filter(None, map(shutil.which, (*names, "msedge")))
    return os.environ.get("VIVACE_BROWSER") or next(found, None) or _fetched()


def _fetched() -> str | None:
    shells = ("headless_shell", "chrome-headless-shell")
    programs = (path for path in sorted(BROWSERS.glob("*/*/*")) if path.stem in shells)
    return next((str(path) for path in programs if path.suffix in ("", ".exe")), None)


def open_editor(
    browser: Browser, url: str, language: str = "en", size: tuple[int, int] = (1500, 900)
) -> Page:
    """A new page with the editor, with our nodes registered.

    Args:
        browser: a running one.
        url: of ComfyUI.
        language: of the editor; the server keeps it.
        size: width and height of the window in pixels.
    """
    # Without this, a new user is shown the templates before the graph.
    settings = {"Comfy.TutorialCompleted": True, "Comfy.Locale": language}
    ComfyClient(url).post("/settings", settings)
    opened = browser.new_page(viewport={"width": size[0], "height": size[1]})
    opened.goto(url)
    opened.wait_for_function(
        "() => window.app?.graph && !!window.LiteGraph?.registered_node_types.VivaceLoraStack",
        timeout=90_000,
    )
    # The editor opens its first workflow a moment after it has registered the nodes.
    opened.wait_for_function("() => app.graph.nodes.length > 0")
    return opened
