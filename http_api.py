"""Lets HTTP clients write list-valued inputs of our nodes as plain JSON lists.

ComfyUI takes every list in a prompt for a link `[node id, output index]` and rejects other lists
before a node sees them; its editor therefore sends `{"__value__": [...]}`. A prompt written by
hand, or copied from `/history`, has the bare list. A prompt handler wraps those, for our nodes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def accept_plain_lists(node_ids: Collection[str]) -> None:
    """Register the handler with the running server, if there is one (tests import without)."""
    from server import PromptServer  # pyright: ignore[reportMissingImports]

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.add_on_prompt_handler(lambda request: wrap_lists(request, node_ids))


def wrap_lists(request: Any, node_ids: Collection[str]) -> Any:
    """Wrap list values that are not links in the body of a `POST /prompt`, in place; return it.

    A body of any other shape is left alone: the server reports what is wrong with it.
    """
    prompt = request.get("prompt") if isinstance(request, dict) else None
    for node in prompt.values() if isinstance(prompt, dict) else ():
        if not isinstance(node, dict) or node.get("class_type") not in node_ids:
            continue
        inputs = node.get("inputs")
        if isinstance(inputs, dict):
            for name, value in inputs.items():
                if isinstance(value, list) and not _is_link(value):
                    inputs[name] = {"__value__": value}
    return request


def _is_link(value: list[Any]) -> bool:
    return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
