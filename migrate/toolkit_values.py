"""The values of those nodes of comfyui-llm-toolkit that add to its `context`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .connections import Neighbor
from .rules import NotMigratable
from .widgets import Layout, Widget, is_switch, is_text, switch, text


def _optional(*names: str) -> tuple[Widget, ...]:
    return tuple(Widget(name, is_text, optional=True) for name in names)


PATHS = ("audio_path", "file_path", "url")
KEY = Layout((text("provider"), text("api_key"), switch("override_existing", optional=True)))
SELECTOR = Layout((text("provider"), text("llm_model"), *_optional("external_api_key")))
ONE_MODEL = Layout((text("llm_model"), *_optional("external_api_key")))
SERVER = Layout((text("llm_provider"), text("llm_model"), *_optional("base_ip", "port")))
PROMPT = Layout(_optional("text_prompt", *PATHS))
TASK = Layout((text("task"), switch("output_as_text", optional=True)))
MUSIC = Layout(
    (
        *_optional("prompt", "style", "title"),
        Widget("custom_mode", is_switch, optional=True),
        Widget("instrumental", is_switch, optional=True),
        *_optional("model", "negative_tags"),
    ),
    (Widget("more", lambda _: True),),
)


def values_of(node: Neighbor, layout: Layout, linkable: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a node by name, from a saved node or from a prompt.

    Args:
        linkable: inputs that may come from another node.

    Raises:
        NotMigratable: they are those of another node, or come over links.
    """
    given = node.values
    names = [widget.name for widget in layout.head]
    for name in node.inputs:
        if name in names and name not in linkable:
            raise NotMigratable(f"'{name}' of {named(node)} comes from another node")
    if isinstance(given, Mapping):
        ordered = {name: given[name] for name in names if name in given}
        checks = {widget.name: widget.accepts for widget in layout.head}
        fits = layout.required - set(node.inputs) <= ordered.keys()
        if fits and all(checks[name](value) for name, value in ordered.items()):
            return ordered
    else:
        found = layout.read(given if isinstance(given, list) else [])
        if found is not None:
            return found
    raise NotMigratable(f"the values of {named(node)} are not those of any version of that node")


def named(node: Neighbor) -> str:
    """Class and id, for messages."""
    return f"{node.class_type} ({node.id})"
