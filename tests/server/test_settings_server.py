"""Settings that take effect in a running ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.graphs import PEFT, row, stack_prompt
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.server import ComfyServer

LOG_DETAIL = "Vivace.General.LogDetail"
APPLIED, READ = "as a runtime branch", "; read in"


@pytest.fixture
def detail(client: ComfyClient) -> Iterator[None]:
    yield
    client.post("/settings", {LOG_DETAIL: "normal"})


@pytest.mark.usefixtures("detail")
def test_the_detail_of_the_log_changes_without_a_restart(
    client: ComfyClient, server: ComfyServer
) -> None:
    assert server.log is not None
    lines: dict[str, str] = {}
    # Every strength is another, so that each run does something.
    for strength, chosen in enumerate(("detailed", "quiet", "normal", "nonsense"), start=31):
        client.post("/settings", {LOG_DETAIL: chosen, "Vivace.LoRA.CacheMB": 0})
        before = len(server.log.read_text())
        client.run(stack_prompt([row(PEFT, strength / 100)]))
        lines[chosen] = server.log.read_text()[before:]
    client.post("/settings", {"Vivace.LoRA.CacheMB": -1})
    found = {name: (APPLIED in text, READ in text) for name, text in lines.items()}
    assert found == {
        "detailed": (True, True),
        "quiet": (False, False),
        "normal": (True, False),
        "nonsense": (True, False),
    }


@pytest.mark.usefixtures("detail")
def test_one_setting_by_its_own_route(client: ComfyClient, server: ComfyServer) -> None:
    assert server.log is not None
    client.post(f"/api/settings/{LOG_DETAIL}", "quiet")
    before = len(server.log.read_text())
    client.run(stack_prompt([row(PEFT, 0.41)]))
    assert APPLIED not in server.log.read_text()[before:]
