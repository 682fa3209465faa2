"""The rows of a LoRA stack, as the editor, a saved workflow or an HTTP client sends them.

Besides our own rows these are rgthree's *Power Lora Loader* inputs and LoRA Manager's rows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_EXAMPLE = '[{"on": true, "lora": "style.safetensors", "strength": 0.8}]'

# Field names, ours first, then rgthree's, then LoRA Manager's.
_ON = ("on", "active")
_LORA = ("lora", "name")
_CLIP = ("strength_clip", "strengthTwo", "clipStrength")
_NUMBERED = re.compile(r"lora_\d+", re.IGNORECASE)


class RowError(ValueError):
    """A row, or the whole value, is not what it should be; the message names the place."""


@dataclass(frozen=True)
class LoraRow:
    """One LoRA of a stack.

    Attributes:
        lora: the name as ComfyUI lists it, or a part of it, with forward slashes.
        strength: for the diffusion model.
        strength_clip: for the text encoder; None is the same as `strength`.
    """

    lora: str
    strength: float = 1.0
    on: bool = True
    strength_clip: float | None = None

    @property
    def clip(self) -> float:
        """The strength for the text encoder."""
        return self.strength if self.strength_clip is None else self.strength_clip

    @property
    def active(self) -> bool:
        """Whether the row changes anything at all, be it only the text encoder."""
        return self.on and (self.strength != 0.0 or self.clip != 0.0)

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON values; `strength_clip` is there only if it is set."""
        row = {"on": self.on, "lora": self.lora, "strength": self.strength}
        return row if self.strength_clip is None else {**row, "strength_clip": self.strength_clip}


def parse_rows(value: Any) -> tuple[LoraRow, ...]:
    """Rows from a list of objects, an object of rows `lora_1`, `lora_2`…, or either as JSON text.

    A row is `{"on", "lora", "strength", "strength_clip"}`, where `active` may stand for `on`,
    `name` for `lora`, and `strengthTwo` or `clipStrength` for `strength_clip`. `on` defaults to
    true and `strength` to 1.0. A row whose `lora` is empty or "None" is one the user has not filled
    in yet, and is left out. Fields that other nodes add are ignored. Rows of an object stand in the
    order in which it names them.

    Raises:
        RowError: the value is neither.
    """
    if isinstance(value, str):
        value = _from_json(value)
    if isinstance(value, Mapping) and "__value__" in value:
        value = value["__value__"]
    return _filled_in(_parse_row(place, row) for place, row in _places(value))


def parse_stack(stack: Any) -> tuple[LoraRow, ...]:
    """Rows from another pack's LORA_STACK: `(name, model strength, clip strength)` each, or None.

    Raises:
        RowError: it is not such a list.
    """
    if stack is not None and not isinstance(stack, (list, tuple)):
        raise RowError(
            f"lora_stack must be a list of (name, strength, strength), not {_show(stack)}."
        )
    rows = []
    for index, item in enumerate(stack or ()):
        place = f"lora_stack[{index}]"
        if not isinstance(item, (list, tuple)) or len(item) < 2:
            raise RowError(f"{place} must be (name, strength, strength), not {_show(item)}.")
        values = dict(zip(("lora", "strength", "strength_clip"), item, strict=False))
        rows.append(_parse_row(place, values))
    return _filled_in(rows)


def _filled_in(rows: Iterable[LoraRow]) -> tuple[LoraRow, ...]:
    return tuple(row for row in rows if row.lora not in ("", "None"))


def _from_json(text: str) -> Any:
    if not text.strip():
        return []
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RowError(f"rows is not valid JSON ({error}); write it like {_EXAMPLE}.") from error


def _places(value: Any) -> list[tuple[str, Any]]:
    """Every row with the place where it stands, for messages."""
    if isinstance(value, (list, tuple)):
        return [(f"rows[{index}]", row) for index, row in enumerate(value)]
    if isinstance(value, Mapping):
        # A Power Lora Loader also sends its header and its button as inputs.
        names = [name for name in value if isinstance(name, str) and _NUMBERED.fullmatch(name)]
        if names:
            return [(name, value[name]) for name in names]
    raise RowError(f"rows must be a list like {_EXAMPLE}, not {_show(value)}.")


def _parse_row(place: str, row: Any) -> LoraRow:
    if not isinstance(row, Mapping):
        raise RowError(f"{place} must be an object as in {_EXAMPLE}, not {_show(row)}.")
    field, lora = _field(row, _LORA, "")
    if not isinstance(lora, str):
        raise RowError(f"{place}.{field} must be the name of a LoRA file, not {_show(lora)}.")
    field, on = _field(row, _ON, True)
    if not isinstance(on, bool):
        raise RowError(f"{place}.{field} must be true or false, not {_show(on)}.")
    strength = _number(f"{place}.strength", row.get("strength", 1.0))
    field, clip = _field(row, _CLIP, None)
    if clip is not None:
        clip = _number(f"{place}.{field}", clip)
    return LoraRow(lora.replace("\\", "/"), strength, on, clip)


def _field(row: Mapping[str, Any], names: tuple[str, ...], default: Any) -> tuple[str, Any]:
    """The first of these fields that is set, by its own name; null is the same as absent."""
    found = ((name, row[name]) for name in names if row.get(name) is not None)
    return next(found, (names[0], default))


def _number(place: str, value: Any) -> float:
    # bool is an int in Python, but `"strength": true` is a mistake.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RowError(f"{place} must be a number, not {_show(value)}.")
    try:
        number = float(value)
    except OverflowError:  # JSON allows whole numbers of any length
        number = math.inf
    if not math.isfinite(number):
        raise RowError(f"{place} must be finite, not {_show(value)}.")
    return number


def _show(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply to show"
    return text if len(text) <= 80 else text[:77] + "..."
