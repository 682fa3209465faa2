"""Text that a user sees at the node that runs now."""

from __future__ import annotations

import sys
from typing import Any


def show_at_node(text: str) -> None:
    """Show a text at the node that ComfyUI's server executes; without a server, nothing."""
    module = sys.modules.get("server")  # none where the pack is used without a server
    server: Any = getattr(getattr(module, "PromptServer", None), "instance", None)
    node = getattr(server, "last_node_id", None)
    if node is not None and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, node, server.client_id)
