"""What the pack adds to ComfyUI's server: handlers of prompts, and routes.

ComfyUI takes every list in a prompt for a link `[node id, output index]` and rejects other lists
before a node sees them; its editor therefore sends `{"__value__": [...]}`. A prompt written by
hand, or copied from `/history`, has the bare list. A prompt handler wraps those, for our nodes.

The rest is beside it, in modules that are imported when they are first needed: those of routes
when one is called, `missing_nodes.py` when a prompt or workflow has an unknown node or the editor
asks for node replacements, `key_guard.py` when a prompt names an API key, `prompt_queue.py` when
one has a Prompt Manager. `nodes/settings.py` is imported when the editor changes a setting.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextvars import ContextVar
from typing import Any

# Method, path, module and function.
ROUTES = (
    ("GET", "/vivace/loras", "loras", "get_loras"),
    ("GET", "/vivace/lora/info", "loras", "get_info"),
    ("GET", "/vivace/lora/preview", "loras", "get_preview"),
    ("GET", "/vivace/stacks", "loras", "get_stacks"),
    ("PUT", "/vivace/stacks/{name}", "loras", "put_stack"),
    ("DELETE", "/vivace/stacks/{name}", "loras", "delete_stack"),
    ("POST", "/vivace/stack_bundle", "loras", "import_stacks"),
    ("GET", "/vivace/prompts", "prompts", "get_prompts"),
    ("GET", "/vivace/prompts/{name:.+}", "prompts", "get_prompt"),
    ("PUT", "/vivace/prompts/{name:.+}", "prompts", "put_prompt"),
    ("PATCH", "/vivace/prompts/{name:.+}", "prompts", "rename_prompt"),
    ("DELETE", "/vivace/prompts/{name:.+}", "prompts", "delete_prompt"),
    ("GET", "/vivace/prompt_history", "prompts", "get_history"),
    ("DELETE", "/vivace/prompt_history", "prompts", "delete_history"),
    ("GET", "/vivace/prompt_bundle", "prompts", "export_prompts"),
    ("POST", "/vivace/prompt_bundle", "prompts", "import_prompts"),
)

# Inputs that name an API key, where people paste the key itself.
KEY_INPUTS = frozenset({"api_key_variable", "key_name"})
KEY_NODE = "VivaceApiKey"
PROMPT_NODE = "VivacePromptManager"
_user: ContextVar[str] = ContextVar("_user", default="default")  # who sent a `POST /prompt`


def extend_server(node_ids: Collection[str]) -> None:
    """Register all of it with the running server, if there is one (tests import without)."""
    from server import PromptServer  # pyright: ignore[reportMissingImports]

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.add_on_prompt_handler(replace_missing)
        server.add_on_prompt_handler(lambda request: wrap_lists(request, node_ids))
        server.add_on_prompt_handler(lambda request: guard_keys(request, node_ids))
        server.add_on_prompt_handler(lambda request: complete_prompts(request, node_ids))
        server.app.middlewares.append(_remember_user(server))
        _add_routes(server)
        _add_replacements(server)
        _follow_settings(server)


def _add_routes(server: Any) -> None:
    for method, path, module, function in ROUTES:
        server.routes.route(method, path)(_on_use(module, function))


def _on_use(module: str, function: str) -> Callable[[Any], Awaitable[Any]]:
    async def handler(request: Any) -> Any:
        routes = importlib.import_module(f".{module}", __package__)
        return await getattr(routes, function)(request)

    return handler


def replace_missing(request: Any) -> Any:
    """Replace nodes of other packs in the body of a `POST /prompt`, where ComfyUI lacks them.

    ComfyUI's own replacement comes later and finds nothing left of them: it leaves out inputs, and
    fails where an optional input or the node's title is missing.
    """
    from nodes import NODE_CLASS_MAPPINGS  # pyright: ignore[reportAttributeAccessIssue]

    prompt = request.get("prompt") if isinstance(request, dict) else None
    if not isinstance(prompt, dict):
        return request
    types = [node.get("class_type") for node in prompt.values() if isinstance(node, dict)]
    if any(isinstance(name, str) and name not in NODE_CLASS_MAPPINGS for name in types):
        from . import missing_nodes

        request["prompt"] = missing_nodes.migrate(prompt)[0]
    return request


def _add_replacements(server: Any) -> None:
    from aiohttp import web

    @server.routes.post("/vivace/migrate")
    async def migrate(request: web.Request) -> web.Response:
        from . import missing_nodes

        return await missing_nodes.respond(request)

    @web.middleware
    async def register_replacements(request: web.Request, handler: Any) -> Any:
        if request.path.endswith("/node_replacements"):
            from . import missing_nodes

            missing_nodes.register(server)
        return await handler(request)

    server.app.middlewares.append(register_replacements)


def _follow_settings(server: Any) -> None:
    """Have changed settings take effect at once where they can."""
    from aiohttp import web

    @web.middleware
    async def follow(request: web.Request, handler: Any) -> Any:
        response = await handler(request)
        path = request.path.removeprefix("/api")
        if request.method == "POST" and path.startswith("/settings"):
            from ..nodes import settings

            settings.apply_log_detail()
        return response

    server.app.middlewares.append(follow)


def wrap_lists(request: Any, node_ids: Collection[str]) -> Any:
    """Wrap list values that are not links in the body of a `POST /prompt`, in place; return it.

    A body of any other shape is left alone: the server reports what is wrong with it.
    """
    for _, inputs in _nodes_of(request, node_ids):
        for name, value in inputs.items():
            if isinstance(value, list) and not _is_link(value):
                inputs[name] = {"__value__": value}
    return request


def guard_keys(request: Any, node_ids: Collection[str]) -> Any:
    """Take keys out of the body of a `POST /prompt` that has some where their names belong."""
    values = [
        value
        for class_type, inputs in _nodes_of(request, node_ids)
        for name, value in inputs.items()
        if isinstance(value, str)
        and (name.rpartition(".")[2] in KEY_INPUTS or class_type == KEY_NODE)
    ]
    if any(values):
        from .key_guard import remove_keys

        remove_keys(request, values)
    return request


def complete_prompts(request: Any, node_ids: Collection[str]) -> Any:
    """Complete the Prompt Manager nodes in the body of a `POST /prompt`."""
    nodes = [inputs for kind, inputs in _nodes_of(request, node_ids) if kind == PROMPT_NODE]
    if nodes:
        from .prompt_queue import complete

        complete(nodes, _user.get())
    return request


def _remember_user(server: Any) -> Any:
    """A middleware, since handlers of prompts do not get to know who sent one."""
    from aiohttp import web

    @web.middleware
    async def remember_user(request: web.Request, handler: Any) -> Any:
        if request.method == "POST" and request.path.endswith("/prompt"):
            try:
                _user.set(server.user_manager.get_request_user_id(request))
            except KeyError:
                _user.set("")  # has no library
        return await handler(request)

    return remember_user


def _nodes_of(request: Any, node_ids: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Type and inputs of our nodes in the body of a `POST /prompt`, whatever its shape."""
    prompt = request.get("prompt") if isinstance(request, dict) else None
    for node in prompt.values() if isinstance(prompt, dict) else ():
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict):
            class_type = node.get("class_type")
            if isinstance(class_type, str) and class_type in node_ids:
                yield class_type, node["inputs"]


def _is_link(value: list[Any]) -> bool:
    return len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
