"""What the values of inputs with choices mean (`DynamicCombo`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_choices(hidden: Any, **options: list[str]) -> None:
    """Refuse unknown values of inputs with choices, which ComfyUI just leaves out.

    Args:
        hidden: of the node, with its id and the prompt.

    Raises:
        ValueError: a value is none of those there are.
    """
    node = (hidden.prompt or {}).get(str(hidden.unique_id)) or {}
    for name, known in options.items():
        value = node.get("inputs", {}).get(name)
        if isinstance(value, str) and value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")


def with_defaults(
    choice: str, values: dict[str, Any] | None, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """What was given of the inputs below a choice, and the defaults of the others."""
    start = f"{choice}."
    below = [name for name in defaults if name.startswith(start)]
    return {name[len(start) :]: defaults[name] for name in below} | given(values)


def given(values: dict[str, Any] | None) -> dict[str, Any]:
    """What was given of the inputs below a choice; ComfyUI hands in None for the others."""
    return {name: value for name, value in (values or {}).items() if value is not None}
