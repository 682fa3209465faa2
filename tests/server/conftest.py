"""What the tests of servers share."""

from __future__ import annotations

import pytest
from support.graphs import node
from vivace.devkit.rig.client import ComfyClient


@pytest.fixture
def fresh(client: ComfyClient) -> None:
    """No image is known from before."""
    client.run({"cache": node("VivaceQwenVLCache", action="clear memory and disk")})
