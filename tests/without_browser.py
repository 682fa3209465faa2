"""`--no-browser`: the only way to leave out the tests in the editor; it says how many."""

from __future__ import annotations

from typing import Any

import pytest

COUNT = "vivace_without_browser"
"""Under this, a process that shares the tests with others tells how many it has left out."""


class WithoutBrowser:
    """Leaves out the tests that ask for a browser."""

    def __init__(self) -> None:
        self._count = 0

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        left_out = [item for item in items if _asks_for_browser(item)]
        self._count = len(left_out)
        items[:] = [item for item in items if not _asks_for_browser(item)]
        config.hook.pytest_deselected(items=left_out)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            vars(session.config)["workeroutput"][COUNT] = self._count

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # Each of them has collected all tests.
        self._count = max(self._count, getattr(node, "workeroutput", {}).get(COUNT, 0))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("without a browser", yellow=True)
        terminalreporter.write_line(f"Tests left out by --no-browser: {self._count}")


def _asks_for_browser(item: pytest.Item) -> bool:
    return "browser" in getattr(item, "fixturenames", ())
