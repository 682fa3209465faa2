"""The rows of a LoRA Stack, as workflows and HTTP clients send them, and other packs' stacks."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from ....lora.rows import LoraRow, RowError, parse_rows, parse_stack
from ....toolkit.json_files import JsonFileError
from ....toolkit.stack_presets import BUNDLE_FIELD, StackPresetError, StackPresets
from .. import scratch
from ..mutations import json_of
from ..refusals import may_refuse

_WORDS = (
    "on", "active", "lora", "name", "strength", "strengthTwo", "strength_clip", "clipStrength",
    "__value__", "lora_1", "LORA_22", "lora_x", "None", "a.safetensors", "s/b.safetensors",
    "PowerLoraLoaderHeaderWidget", BUNDLE_FIELD, "con", "A", "x" * 250,
)  # fmt: skip


def target(data: bytes) -> None:
    """Read the rows as a value, as text, as another pack's stack, and as stacks of a file."""
    text = data.decode("utf-8", "surrogateescape")
    with may_refuse(RowError):
        _parsed(text)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return
    before = json.dumps(value)
    with may_refuse(RowError):
        _parsed(value)
    with may_refuse(RowError):
        _parsed(parse_stack(value))
    _import(value)
    assert json.dumps(value) == before


def _parsed(value: Any) -> None:
    rows = value if isinstance(value, tuple) and _all_rows(value) else parse_rows(value)
    assert all(row.lora not in ("", "None") for row in rows)
    again = json.loads(json.dumps([row.as_dict() for row in rows], allow_nan=False))
    assert parse_rows(again) == rows


def _all_rows(value: tuple[Any, ...]) -> bool:
    return all(isinstance(row, LoraRow) for row in value)


def _import(value: Any) -> None:
    """Either all stacks of a file are saved, or none."""
    with scratch.folder() as folder:
        presets = StackPresets(folder)
        presets.save("there", [LoraRow("x.safetensors")])
        before = scratch.contents(folder)
        try:
            saved = presets.import_bundle(value, overwrite=False)
        except (StackPresetError, JsonFileError):
            assert scratch.contents(folder) == before
            with may_refuse(StackPresetError, JsonFileError):
                raise
            return
        listing = presets.list()
        assert not listing.problems
        assert len(listing.values) == len(saved) + 1
        json.dumps([row.as_dict() for rows in listing.values.values() for row in rows])


def seeds() -> Sequence[bytes]:
    """Our own rows, rgthree's, LoRA Manager's, a stack, and a file of stacks."""
    ours = [
        {"on": True, "lora": "a.safetensors", "strength": 0.8},
        {"on": False, "lora": "s\\b.safetensors", "strength": -1, "strength_clip": 0.5},
    ]
    rgthree = {
        "PowerLoraLoaderHeaderWidget": {"type": "PowerLoraLoaderHeaderWidget"},
        "lora_1": {"on": True, "lora": "a.safetensors", "strength": 1, "strengthTwo": None},
        "\u2795 Add Lora": "",
    }
    manager = {"__value__": [{"name": "a", "strength": 0.7, "active": True, "clipStrength": 0.7}]}
    stack = [["a.safetensors", 1.0, 0.5], ["None", 0.0, 0.0]]
    bundle = {BUNDLE_FIELD: {"mine": ours, "Thine": []}}
    return [json.dumps(one).encode() for one in (ours, rgthree, manager, stack, bundle, [])]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change rows and their fields."""
    return json_of(data, chance, _WORDS)
