"""The console of a page: errors and warnings, and which of them are ours."""

from __future__ import annotations

from playwright.sync_api import ConsoleMessage, Error, Page

OURS = "extensions/comfyui-vivace"


class Console:
    """Collects errors and warnings until it is closed."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.found: list[str] = []
        page.on("pageerror", self._on_error)
        page.on("console", self._on_message)

    @property
    def ours(self) -> list[str]:
        """Those from scripts of this pack, or with them in the stack."""
        return [text for text in self.found if OURS in text.lower()]

    def close(self) -> None:
        self.page.remove_listener("pageerror", self._on_error)
        self.page.remove_listener("console", self._on_message)

    def _on_error(self, error: Error) -> None:
        self.found.append(f"{error} {error.stack}")

    def _on_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"{message.type}: {message.text} {message.location}")
