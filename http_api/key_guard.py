"""Takes keys out of a `POST /prompt` before anything keeps or logs it.

ComfyUI keeps a whole prompt in its history, with the workflow that goes into images, also when the
node with the key in it was refused; so the node's own check comes too late.
"""

from __future__ import annotations

from typing import Any

from ..vlm.remote.key_shape import REMOVED, looks_like_key


def remove_keys(request: dict[str, Any], values: list[str]) -> None:
    """Replace those values that look like keys, in place, wherever the request has them."""
    found = sorted({value.strip() for value in values if looks_like_key(value)}, key=len)
    if found:
        for name, value in request.items():
            request[name] = _without(value, found[::-1])


def _without(value: Any, keys: list[str]) -> Any:
    if isinstance(value, str):
        for key in keys:
            value = value.replace(key, REMOVED)
    elif isinstance(value, list):
        value[:] = [_without(item, keys) for item in value]
    elif isinstance(value, dict):
        for name, item in value.items():
            value[name] = _without(item, keys)
    return value
