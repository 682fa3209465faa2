"""The check of the editor's console, which every test in the editor makes, sees what it should."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page
from support.console import Console

OURS = "http://127.0.0.1/extensions/ComfyUI-Vivace/rows/probe.js"
OTHER = "http://127.0.0.1/extensions/other/probe.js"


def settle(page: Page) -> None:
    """Wait until all that the page has said so far has come, however busy it is."""
    with page.expect_console_message(lambda message: message.text == "settled"):
        page.evaluate("() => { setTimeout(() => console.info('settled'), 300); }")


@pytest.mark.parametrize(
    "fault",
    [
        "console.error('wrong')",
        "console.warn('odd')",
        "setTimeout(() => { throw new Error('thrown'); })",
        "Promise.reject(new Error('rejected'))",
    ],
)
def test_faults_of_our_scripts_are_seen_and_no_others(page: Page, fault: str) -> None:
    for source, count in ((OTHER, 0), (OURS, 1)):
        settle(page)
        console = Console(page)
        page.add_script_tag(content=f"{fault}\n//# sourceURL={source}")
        settle(page)
        console.close()
        assert len(console.ours) == count, console.found


def test_what_is_no_fault_is_not_seen(page: Page) -> None:
    console = Console(page)
    page.add_script_tag(content=f"console.info('all is well')\n//# sourceURL={OURS}")
    settle(page)
    console.close()
    assert console.ours == []
