"""The table of our inputs against the real schemas."""

from __future__ import annotations

from typing import Any

import pytest
from vivace.devkit.rig.client import ComfyClient
from vivace.migrate.our_nodes import NO_PRESET, TARGETS, Input
from vivace.migrate.qwenvl_values import PRESETS as OURS
from vivace.migrate.table import RULES
from vivace.vlm.preset_prompts import PRESETS


@pytest.fixture(scope="module")
def info(client: ComfyClient) -> dict[str, Any]:
    return client.get_json("/object_info")


SOCKETS = ("MODEL", "IMAGE", "MASK", "AUDIO", "LORA_STACK", "CLIP", "VIVACE_API_KEY", "VIVACE_CHAT")


def flat(prefix: str, definitions: dict[str, Any], when: tuple[str, str] | None) -> list[Input]:
    """The inputs of a schema, those below choices after them."""
    found = []
    for kind in ("required", "optional"):
        for name, (io_type, options) in definitions.get(kind, {}).items():
            full = prefix + name
            optional = kind == "optional"
            if io_type == "COMFY_AUTOGROW_V3":
                template = options["template"]
                inner = next(one for part in template["input"].values() for one in part.values())
                item = f"{full}.{template['prefix']}"
                slots = template["max"]
                found.append(Input(item, inner[0], widget=False, optional=optional, slots=slots))
                continue
            type_ = "COMBO" if isinstance(io_type, list) else io_type
            widget = type_ not in SOCKETS and not options.get("forceInput")
            found.append(Input(full, type_, widget=widget, optional=optional, when=when))
            if type_ == "COMFY_DYNAMICCOMBO_V3":
                for option in options["options"]:
                    found += flat(f"{full}.", option["inputs"], (full, option["key"]))
    return found


def plain(item: Input) -> tuple[Any, ...]:
    return item.name, item.type, item.widget, item.optional, item.when, item.slots


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_and_outputs_are_those_of_the_schema(info: dict[str, Any], name: str) -> None:
    node, target = info[name], TARGETS[name]
    real = flat("", node["input"], None)
    assert sorted(map(plain, target.inputs), key=str) == sorted(map(plain, real), key=str)
    outputs = list(zip(node["output_name"], node["output"], strict=True))
    assert list(target.outputs) == outputs


def test_every_rule_has_a_target() -> None:
    for rule in RULES.values():
        target = TARGETS[rule.new]
        names = {f"{item.name}0" if item.slots else item.name for item in target.inputs}
        assert {item.new for item in rule.fields} | set(rule.fixed) <= names
        assert set(rule.widgets.values()) <= names
        assert max(rule.outputs.values(), default=0) < len(target.outputs)


def test_the_presets_exist() -> None:
    assert {ours for _, ours in OURS} | {NO_PRESET} <= set(PRESETS)
