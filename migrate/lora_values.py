"""What the values of other packs' LoRA nodes mean in ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..lora.files.file_types import is_lora_file
from .rules import NewNode, NotMigratable, OldNode, as_number, find_name, shown
from .widgets import is_list, is_number, is_record

LIMIT = 100.0
_SLOT = re.compile(r"(?:enabled|lora_name|lora_strength)_\d{1,4}")
_SLOT_NAME = re.compile(r"lora_name_(\d{1,4})")
_ROW_NAME = re.compile(r"(?:row|lora)_(\d{1,9})", re.IGNORECASE)


def slot_inputs(name: str) -> bool:
    """What `slots` reads."""
    return name in {"lora_count", "apply_awq_mod"} or _SLOT.fullmatch(name) is not None


def row_inputs(name: str) -> bool:
    """What rows as objects are read from."""
    return name in {"stack_enabled", "apply_awq_mod"} or _ROW_NAME.fullmatch(name) is not None


def slots(old: OldNode, new: NewNode) -> None:
    """Rows from `lora_name_1`, `lora_strength_1` and, in some, `enabled_1` and so on."""
    count = old.values.get("lora_count", 10)
    if not is_number(count):
        raise NotMigratable(f"lora_count is {shown(count)}, not a number")
    numbers = [found[1] for name in old.values if (found := _SLOT_NAME.fullmatch(name))]
    rows = []
    for number in sorted(numbers, key=int):
        name = old.values[f"lora_name_{number}"]
        strength = old.values.get(f"lora_strength_{number}", 1.0)
        # A slot beyond the count was not applied; it may hold a name all the same.
        on = old.values.get(f"enabled_{number}", True) is not False and int(number) <= count
        rows.append((f"lora_name_{number}", name, strength, on))
    _enter(rows, old, new)


def _records(name_key: str, on_key: str, old: OldNode) -> Iterator[tuple[str, Any, Any, bool]]:
    """Rows from `lora_1`, `lora_2` and so on, each an object."""
    numbered = [(name, _ROW_NAME.fullmatch(name)) for name in old.values]
    for name, _ in sorted(
        ((name, int(found[1])) for name, found in numbered if found), key=lambda item: item[1]
    ):
        row = old.values[name]
        if isinstance(row, dict) and name_key in row:
            yield (
                name,
                row[name_key],
                row.get("strength", row.get("lora_strength", 1.0)),
                bool(row.get(on_key, True)),
            )


def nunchaku_rows(old: OldNode, new: NewNode) -> None:
    """Rows `{enabled, lora_name, lora_strength}` below one switch for all."""
    on = old.values.get("stack_enabled", True) is not False
    rows = _records("lora_name", "enabled", old)
    _enter([(place, name, strength, flag and on) for place, name, strength, flag in rows], old, new)


def power_rows(old: OldNode, new: NewNode) -> None:
    """Rows `{on, lora, strength, strengthTwo}`, of which the second is for the text encoder."""
    rows = list(_records("lora", "on", old))
    seconds = {place: old.values[place].get("strengthTwo") for place, *_ in rows}
    _enter(rows, old, new, seconds)


def manager_rows(old: OldNode, new: NewNode) -> None:
    """A list of `{name, strength, clipStrength, active}`, names without folder and suffix."""
    found = old.values.get("loras", [])
    if isinstance(found, dict) and "__value__" in found:
        found = found["__value__"]
    if not is_list(found):
        raise NotMigratable(f"loras is {shown(found)}, not a list")
    rows, seconds = [], {}
    for index, row in enumerate(found):
        if not is_record(row) or not isinstance(row.get("name"), str):
            raise NotMigratable(f"loras[{index}] is {shown(row)}, not a LoRA with a name")
        name = row["name"]
        if not is_lora_file(name):
            name += ".safetensors"
        place = f"loras[{index}]"
        rows.append((place, name, _parsed(row.get("strength", 1.0)), row.get("active") is True))
        seconds[place] = _parsed(row.get("clipStrength"))
    _enter(rows, old, new, seconds)
    if rows and not old.known.loras:
        new.notes.append("its LoRAs were saved without folder and suffix; look them over")
    if "lora_stack" in old.linked:
        new.links["lora_stack"] = "lora_stack"


def _parsed(value: Any) -> Any:
    """A number that was saved as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _enter(
    rows: Iterable[tuple[str, Any, Any, bool]],
    old: OldNode,
    new: NewNode,
    seconds: Mapping[str, Any] | None = None,
) -> None:
    """Rows as (place, name, strength, on), and by place the strengths for the text encoder."""
    found = []
    for place, name, strength, on in rows:
        if name in (None, "", "None"):
            continue
        if not isinstance(name, str):
            raise NotMigratable(f"{place} is {shown(name)}, not the name of a file")
        if not is_number(strength):
            raise NotMigratable(f"the strength of {place} is {shown(strength)}, not a number")
        inside = as_number(-LIMIT, LIMIT)(strength, new.notes)
        lora = find_name(name, old.known.loras, new.notes)
        row = {"on": on, "lora": lora, "strength": inside}
        second = (seconds or {}).get(place)
        if second is not None:
            if not is_number(second):
                raise NotMigratable(
                    f"the text encoder strength of {place} is {shown(second)}, not a number"
                )
            clip = as_number(-LIMIT, LIMIT)(second, new.notes)
            row |= {"strength_clip": clip} if clip != inside else {}
        found.append(row)
    new.values["rows"] = found
    if old.values.get("apply_awq_mod") is False and any(row["on"] for row in found):
        new.notes.append("apply_awq_mod was off; ours applies modulation layers as well, exactly")


def lora(old: OldNode, new: NewNode) -> None:
    """The one file of a loader."""
    if "lora_name" in old.linked:
        new.links["lora"] = "lora_name"
    name = old.values.get("lora_name")
    if isinstance(name, str) and name not in ("", "None"):
        new.values["lora"] = find_name(name, old.known.loras, new.notes)
    elif "lora_name" not in old.linked:
        raise NotMigratable(f"lora_name is {shown(name)}, not the name of a file")
