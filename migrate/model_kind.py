"""Whether a node's model is Qwen-Image or Z-Image, as far as the workflow says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

_OURS = re.compile(r"qwen[-_ .]?image|z[-_ .]?image|VivaceLoadSvdquantModel", re.IGNORECASE)
# Outputs of these are the input of the same kind, whatever they are called.
_PASSING = re.compile(r"reroute|switch", re.IGNORECASE)

Upstream = Callable[[Any], Iterable[tuple[str, Any]]]


def is_ours(
    start: Any, upstream: Upstream, texts: Callable[[Any], Iterable[str]], class_of: Callable
) -> bool:
    """Follow the model upstream from `start` until a loader names it.

    Args:
        start: a node's id.
        upstream: input name and id of the node that it comes from, for each input.
        texts: strings among a node's values.
        class_of: a node's class name.
    """
    seen: set[Any] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        own = "" if node == start else str(class_of(node))
        if node != start and any(_OURS.search(text) for text in (own, *texts(node))):
            return True
        for name, origin in upstream(node):
            if "model" in name.lower() or _PASSING.search(own):
                waiting.append(origin)
    return False


def strings(value: Any) -> Iterable[str]:
    """All strings of JSON data, a few levels deep."""
    waiting = [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, str):
            yield item
        elif depth < 3 and isinstance(item, (list, dict)):
            inner = item.values() if isinstance(item, dict) else item
            waiting += [(part, depth + 1) for part in inner]
