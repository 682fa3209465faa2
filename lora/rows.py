"""The rows of a LoRA stack, as the editor, a saved workflow or an HTTP client sends them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_EXAMPLE = '[{"on": true, "lora": "style.safetensors", "strength": 0.8}]'


class RowError(ValueError):
    """A row, or the whole value, is not what it should be; the message names the place."""


@dataclass(frozen=True)
class LoraRow:
    """One LoRA of a stack. `lora` is the name as ComfyUI lists it, with forward slashes."""

    lora: str
    strength: float = 1.0
    on: bool = True

    @property
    def active(self) -> bool:
        """Whether the row changes the model at all."""
        return self.on and self.strength != 0.0


def parse_rows(value: Any) -> tuple[LoraRow, ...]:
    """Rows from a list of `{"on", "lora", "strength"}` objects, or the same as JSON text.

    `on` defaults to true and `strength` to 1.0. A row whose `lora` is empty or "None" is one the
    user has not filled in yet, and is left out. Fields that other nodes add are ignored.

    Raises:
        RowError: the value is not such a list.
    """
    if isinstance(value, str):
        value = _from_json(value)
    if isinstance(value, Mapping) and "__value__" in value:
        value = value["__value__"]
    if not isinstance(value, (list, tuple)):
        raise RowError(f"rows must be a list like {_EXAMPLE}, not {_show(value)}.")
    rows = (_parse_row(index, row) for index, row in enumerate(value))
    return tuple(row for row in rows if row.lora not in ("", "None"))


def _from_json(text: str) -> Any:
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RowError(f"rows is not valid JSON ({error}); write it like {_EXAMPLE}.") from error


def _parse_row(index: int, row: Any) -> LoraRow:
    if not isinstance(row, Mapping):
        raise RowError(f"rows[{index}] must be an object as in {_EXAMPLE}, not {_show(row)}.")
    lora = row.get("lora", "")
    if lora is None:
        lora = ""
    if not isinstance(lora, str):
        raise RowError(f"rows[{index}].lora must be the name of a LoRA file, not {_show(lora)}.")
    on = row.get("on", True)
    if not isinstance(on, bool):
        raise RowError(f"rows[{index}].on must be true or false, not {_show(on)}.")
    strength = row.get("strength", 1.0)
    # bool is an int in Python, but `"strength": true` is a mistake.
    if isinstance(strength, bool) or not isinstance(strength, (int, float)):
        raise RowError(f"rows[{index}].strength must be a number, not {_show(strength)}.")
    if not math.isfinite(strength):
        raise RowError(f"rows[{index}].strength must be finite, not {strength}.")
    return LoraRow(lora.replace("\\", "/"), float(strength), on)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
