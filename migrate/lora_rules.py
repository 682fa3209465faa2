"""LoRA loaders and stacks of other packs -> LoRA Loader and LoRA Stack.

Input names and orders of widgets are those of ComfyUI-QwenImageLoraLoader up to 2.5.7,
rgthree-comfy and ComfyUI-Lora-Manager up to 1.2.1.
"""

from __future__ import annotations

from .lora_values import (
    LIMIT,
    lora,
    manager_rows,
    nunchaku_rows,
    power_rows,
    row_inputs,
    slot_inputs,
    slots,
)
from .rules import Field, Rule, as_number
from .widgets import (
    Layout,
    Widget,
    integer,
    is_list,
    is_name,
    is_record,
    number,
    one_of,
    switch,
    text,
)

_OFFLOAD = Widget("cpu_offload", one_of("auto", "enable", "disable"))
_SAVE = switch("save_precompiled_lora", optional=True)
_AWQ = switch("apply_awq_mod", optional=True)
_COUNT_MENU = Widget("lora_count_menu", one_of(*map(str, range(1, 11))), optional=True)
_COUNT = integer("lora_count")
_NAME, _STRENGTH = Widget("lora_name", is_name), number("lora_strength")
_ENABLED = switch("enabled")
# Dividers, headings and buttons stand among the rows.
_ROW = Widget("row", lambda value: is_record(value) or value in (None, ""))

# The loader sets the offload, there is nothing to compile beforehand, and the menu repeats a value.
_IGNORED = frozenset({"cpu_offload", "save_precompiled_lora", "lora_count_menu", "toggle_all"})

_MODEL = Field("model", "model", lambda value, _: value)
_CLIP = Field("clip", "clip", lambda value, _: value)
_WITH_CLIP = {0: 0, 1: 5}
_OLD_SLOTS = Layout((_COUNT_MENU, _COUNT, _OFFLOAD, _AWQ, _SAVE), (_NAME, _STRENGTH))
_SWITCHED = (_ENABLED, _NAME, _STRENGTH)
_TOGGLE = switch("toggle_all")

LORA_RULES = (
    Rule(
        ("NunchakuQwenImageLoraLoader",),
        "VivaceLoraLoader",
        (
            Layout((text("lora_name"), number("lora_strength"), _OFFLOAD, _SAVE)),
            Layout((text("lora_name"), number("lora_strength"))),
        ),
        (_MODEL, Field("lora_strength", "strength", as_number(-LIMIT, LIMIT))),
        ignored=_IGNORED,
        finish=lora,
        widgets={"lora_name": "lora"},
        own=lambda name: name == "lora_name",
    ),
    Rule(
        (
            "NunchakuQwenImageLoraStack",
            "NunchakuQwenImageLoraStackV2",
            "NunchakuZImageTurboLoraStackV2",
        ),
        "VivaceLoraStack",
        (_OLD_SLOTS, Layout((_COUNT_MENU, _COUNT), (_NAME, _STRENGTH))),
        (_MODEL,),
        ignored=_IGNORED,
        finish=slots,
        own=slot_inputs,
    ),
    Rule(
        ("NunchakuQwenImageLoraStackV3", "NunchakuZImageTurboLoraStackV3"),
        "VivaceLoraStack",
        (
            Layout((_COUNT_MENU, _COUNT, _TOGGLE, _OFFLOAD, _SAVE), _SWITCHED),
            Layout((_COUNT_MENU, _COUNT, _OFFLOAD, _TOGGLE, _SAVE), _SWITCHED),
        ),
        (_MODEL,),
        ignored=_IGNORED,
        finish=slots,
        own=slot_inputs,
    ),
    Rule(
        ("NunchakuZImageTurboLoraStackV4",),
        "VivaceLoraStack",
        (Layout((_COUNT_MENU, _COUNT, _TOGGLE), _SWITCHED),),
        (_MODEL,),
        ignored=_IGNORED,
        passes={1: "clip"},
        finish=slots,
        own=slot_inputs,
    ),
    Rule(
        ("NunchakuQwenImageLoraStackV1", "NunchakuQwenImageLoraStackV4"),
        "VivaceLoraStack",
        (Layout((_OFFLOAD, switch("apply_awq_mod"), switch("stack_enabled"), _SAVE), (_ROW,)),),
        (_MODEL,),
        ignored=_IGNORED,
        finish=nunchaku_rows,
        own=row_inputs,
    ),
    Rule(
        ("NunchakuZImageTurboLoraStackV1",),
        "VivaceLoraStack",
        (Layout((switch("stack_enabled"),), (_ROW,)),),
        (_MODEL,),
        passes={1: "clip"},
        finish=nunchaku_rows,
        own=row_inputs,
    ),
    Rule(
        ("Power Lora Loader (rgthree)",),
        "VivaceLoraStack",
        (Layout((), (_ROW,)),),
        (_MODEL, _CLIP),
        ignored=frozenset({"PowerLoraLoaderHeaderWidget", "divider", "\u2795 Add Lora"}),
        outputs=_WITH_CLIP,
        finish=power_rows,
        own=row_inputs,
        for_any_model=True,
    ),
    Rule(
        ("Lora Loader (LoraManager)",),
        "VivaceLoraStack",
        (
            Layout(
                (Widget("meta", is_record, optional=True), text("text"), Widget("loras", is_list))
            ),
        ),
        (_MODEL, _CLIP),
        ignored=frozenset({"text", "meta"}),
        outputs=_WITH_CLIP,
        finish=manager_rows,
        own=lambda name: name == "loras",
        for_any_model=True,
    ),
)
