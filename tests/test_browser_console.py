"""The check of the editor's console, which every test in the editor makes, sees what it should."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page
from support.console import Console

OURS = "http://127.0.0.1/extensions/ComfyUI-Vivace/rows/probe.js"
OTHER = "http://127.0.0.1/extensions/other/probe.js"


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
        console = Console(page)
        page.add_script_tag(content=f"{fault}\n//# sourceURL={source}")
        page.wait_for_timeout(300)
        console.close()
        assert len(console.ours) == count, console.found


def test_what_is_no_fault_is_not_seen(page: Page) -> None:
    console = Console(page)
    page.add_script_tag(content=f"console.info('all is well')\n//# sourceURL={OURS}")
    page.wait_for_timeout(300)
    console.close()
    assert console.ours == []
