"""What the pack adds to ComfyUI's HTTP API: plain lists in prompts, and routes for the LoRA editor.

ComfyUI takes every list in a prompt for a link `[node id, output index]` and rejects other lists
before a node sees them; its editor therefore sends `{"__value__": [...]}`. A prompt written by
hand, or copied from `/history`, has the bare list. A prompt handler wraps those, for our nodes.

The code behind a route is imported when it is first called.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

# Method, path, and function of `lora_routes.py`.
ROUTES = (
    ("GET", "/vivace/loras", "get_loras"),
    ("GET", "/vivace/lora/info", "get_info"),
    ("GET", "/vivace/lora/preview", "get_preview"),
    ("GET", "/vivace/stacks", "get_stacks"),
    ("PUT", "/vivace/stacks/{name}", "put_stack"),
    ("DELETE", "/vivace/stacks/{name}", "delete_stack"),
)


def extend_server(node_ids: Collection[str]) -> None:
    """Register handler and routes with the running server, if there is one (not in most tests)."""
    from server import PromptServer  # pyright: ignore[reportMissingImports]

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return
    server.add_on_prompt_handler(lambda request: wrap_lists(request, node_ids))
    for method, path, function in ROUTES:
        server.routes.route(method, path)(_on_use(function))


def _on_use(function: str) -> Callable[[Any], Awaitable[Any]]:
    async def handler(request: Any) -> Any:
        from . import lora_routes

        return await getattr(lora_routes, function)(request)

    return handler


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
