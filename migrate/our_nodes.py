"""The inputs and outputs of our nodes, in the order in which the editor saves them.

`tests/server/migrate/test_targets.py` compares this table with the real schemas and the editor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..defaults import DEFAULTS, NO_PRESET
from .widgets import CONTROL

# Where an old node had no preset, ours shall not add one.
_MIGRATED = {"preset": NO_PRESET}


@dataclass(frozen=True)
class Input:
    """One input of ours."""

    name: str
    type: str
    widget: bool = True
    optional: bool = False
    when: tuple[str, str] | None = None
    """The choice, and its value, that this input belongs to."""
    slots: int = 0
    """For an input that grows: how many sockets there can be; their numbers follow the name."""


@dataclass(frozen=True)
class OurNode:
    """One node of ours."""

    node_id: str
    inputs: tuple[Input, ...]
    outputs: tuple[tuple[str, str], ...]
    """Name and type of each."""
    size: tuple[int, int]
    """Least width and height in the editor."""

    def present(self, values: Mapping[str, Any], linked: Collection[str]) -> Iterator[Input]:
        """The inputs that the node has with these values, sockets first, as the editor does."""
        for item in self.inputs:
            if item.slots:
                used = sum(name.startswith(item.name) for name in linked)
                for index in range(min(used + 1, item.slots)):
                    yield Input(f"{item.name}{index}", item.type, widget=False, optional=True)
            elif not item.widget:
                yield item
        for item in self.inputs:
            if item.widget and (item.when is None or self._chosen(item.when, values)):
                yield item

    def complete(self, values: Mapping[str, Any], linked: Collection[str]) -> dict[str, Any]:
        """A value for each widget that the node has with these values, in order."""
        found = {}
        for item in self.present(values, linked):
            if item.widget:
                found[item.name] = values.get(item.name, self._default(item.name))
                if item.name == "seed":
                    found[CONTROL] = values.get(CONTROL, "fixed")
        return found

    def _chosen(self, when: tuple[str, str], values: Mapping[str, Any]) -> bool:
        name, option = when
        return values.get(name, self._default(name)) == option

    def _default(self, name: str) -> Any:
        return _MIGRATED.get(name, DEFAULTS[self.node_id].get(name))


def _socket(name: str, type_: str, optional: bool = False, slots: int = 0) -> Input:
    return Input(name, type_, widget=False, optional=optional, slots=slots)


def _optional(name: str, type_: str, when: tuple[str, str] | None = None) -> Input:
    return Input(name, type_, optional=True, when=when)


_LOCAL, _SERVER, _CUSTOM = ("engine", "local"), ("engine", "server"), ("sampling", "custom")
_CHOICE = "COMFY_DYNAMICCOMBO_V3"
_GRADIENT, _CHECKER, _NOISE = (("pattern", name) for name in ("gradient", "checker", "noise"))
_FORM = "answer_format"
_AS_JSON, _AS_SCHEMA = (_FORM, "JSON"), (_FORM, "JSON schema")
_ENGINE = (
    Input("engine", _CHOICE),
    Input("engine.model", "COMBO", when=_LOCAL),
    _optional("engine.quantization", "COMBO", _LOCAL),
    _optional("engine.dtype", "COMBO", _LOCAL),
    _optional("engine.attention", "COMBO", _LOCAL),
    _optional("engine.compile_vision", "COMBO", _LOCAL),
    _optional("engine.compile_decode", "COMBO", _LOCAL),
    _optional("engine.keep_loaded", "BOOLEAN", _LOCAL),
    Input("engine.address", "STRING", when=_SERVER),
    Input("engine.server_model", "STRING", when=_SERVER),
    _optional("engine.api_key_variable", "STRING", _SERVER),
    _optional("engine.timeout", "FLOAT", _SERVER),
    _optional("engine.concurrency", "INT", _SERVER),
)
_ANSWER = (
    _optional("image_quality", "COMBO"),
    _optional("enable_image_cache", "BOOLEAN"),
    _optional("max_tokens", "INT"),
    _optional("thinking_budget", "INT"),
    _optional("sampling", _CHOICE),
    _optional("sampling.temperature", "FLOAT", _CUSTOM),
    _optional("sampling.top_p", "FLOAT", _CUSTOM),
    _optional("sampling.top_k", "INT", _CUSTOM),
    _optional("sampling.min_p", "FLOAT", _CUSTOM),
    _optional("sampling.repetition_penalty", "FLOAT", _CUSTOM),
    _optional("seed", "INT"),
)
_MODE = (_optional("mode", "COMBO"), _optional("strict", "BOOLEAN"))

_TARGETS = (
    OurNode(
        "VivaceLoraStack",
        (
            _socket("model", "MODEL"),
            _socket("lora_stack", "LORA_STACK", optional=True),
            _socket("text", "STRING", optional=True),
            _socket("clip", "CLIP", optional=True),
            Input("rows", "VIVACE_LORA_ROWS"),
            *_MODE,
        ),
        (
            ("model", "MODEL"),
            ("report", "STRING"),
            ("lora_stack", "LORA_STACK"),
            ("trigger_words", "STRING"),
            ("text", "STRING"),
            ("clip", "CLIP"),
        ),
        (360, 178),
    ),
    OurNode(
        "VivaceLoraLoader",
        (
            _socket("model", "MODEL"),
            Input("lora", "COMBO"),
            Input("strength", "FLOAT"),
            *_MODE,
        ),
        (("model", "MODEL"), ("report", "STRING")),
        (270, 102),
    ),
    OurNode(
        "VivaceBlankImage",
        (
            Input("width", "INT"),
            Input("height", "INT"),
            Input("batch_size", "INT"),
            Input("color", "STRING"),
            _optional("pattern", _CHOICE),
            *(
                _optional("pattern.second_color", "STRING", when)
                for when in (_GRADIENT, _CHECKER, _NOISE)
            ),
            _optional("pattern.direction", "COMBO", _GRADIENT),
            _optional("pattern.cell", "INT", _CHECKER),
            _optional("pattern.seed", "INT", _NOISE),
            _optional("pattern.colored", "BOOLEAN", _NOISE),
        ),
        (("image", "IMAGE"), ("mask", "MASK")),
        (270, 150),
    ),
    OurNode(
        "VivaceImageIsEmpty",
        (
            _socket("image", "IMAGE", optional=True),
            _socket("mask", "MASK", optional=True),
            Input("uniform_within", "FLOAT"),
            Input("black_below", "FLOAT"),
            Input("white_above", "FLOAT"),
            Input("transparent_above", "FLOAT"),
        ),
        (("is_empty", "BOOLEAN"), ("each", "BOOLEAN"), ("details", "STRING")),
        (270, 74),
    ),
    OurNode(
        "VivacePreviewIf",
        (
            _socket("image", "IMAGE"),
            _socket("replacement", "IMAGE", optional=True),
            Input("condition", "BOOLEAN"),
            Input("action", "COMBO"),
            Input("filename_prefix", "STRING"),
            _optional("otherwise", "COMBO"),
        ),
        (("image", "IMAGE"),),
        (270, 150),
    ),
    OurNode(
        "VivaceQwenVL",
        (
            _socket("images.image", "IMAGE", optional=True, slots=32),
            _socket("video", "IMAGE", optional=True),
            _socket("api_key", "VIVACE_API_KEY", optional=True),
            *_ENGINE,
            _optional("preset", "COMBO"),
            _optional("prompt", "STRING"),
            _optional("system_prompt", "STRING"),
            *_ANSWER,
            _optional("fps", "FLOAT"),
            _optional("sample_fps", "FLOAT"),
            _optional("max_frames", "INT"),
        ),
        (("text", "STRING"), ("thinking", "STRING"), ("report", "STRING")),
        (400, 512),
    ),
    OurNode(
        "VivaceGenerateText",
        (
            _socket("images.image", "IMAGE", optional=True, slots=32),
            _socket("chat", "VIVACE_CHAT", optional=True),
            _socket("api_key", "VIVACE_API_KEY", optional=True),
            *_ENGINE,
            Input("prompt", "STRING"),
            _optional("system_prompt", "STRING"),
            *_ANSWER,
            _optional(_FORM, _CHOICE),
            _optional(f"{_FORM}.retries", "INT", _AS_JSON),
            Input(f"{_FORM}.schema", "STRING", when=_AS_SCHEMA),
            _optional(f"{_FORM}.retries", "INT", _AS_SCHEMA),
            _optional("stop", "STRING"),
            _optional("price_prompt", "FLOAT"),
            _optional("price_answer", "FLOAT"),
        ),
        (
            ("text", "STRING"),
            ("thinking", "STRING"),
            ("chat", "VIVACE_CHAT"),
            ("transcript", "STRING"),
            ("usage", "STRING"),
            ("report", "STRING"),
        ),
        (400, 512),
    ),
    OurNode(
        "VivaceApiKey",
        (
            Input("source", "COMBO"),
            Input("key_name", "STRING"),
        ),
        (("api_key", "VIVACE_API_KEY"),),
        (270, 82),
    ),
    OurNode(
        "VivacePromptManager",
        (
            *(
                _optional(name, "STRING")
                for name in ("prompt", "positive", "negative", "variables")
            ),
            _optional("seed", "INT"),
        ),
        (("positive", "STRING"), ("negative", "STRING"), ("name", "STRING"), ("seed", "INT")),
        (400, 400),
    ),
    OurNode(
        "VivacePreviewOutputs",
        (
            _socket("values.value", "*", optional=True, slots=20),
            _optional("summary_format", "COMBO"),
        ),
        (("summary", "STRING"),),
        (270, 82),
    ),
    OurNode(
        "VivaceGenerateMusic",
        (
            _socket("melody", "AUDIO", optional=True),
            _socket("continue_from", "AUDIO", optional=True),
            Input("model", "COMBO"),
            Input("prompt", "STRING"),
            Input("duration", "FLOAT"),
            _optional("include_given", "BOOLEAN"),
            _optional("variations", "INT"),
            _optional("guidance_scale", "FLOAT"),
            _optional("temperature", "FLOAT"),
            _optional("top_k", "INT"),
            _optional("seed", "INT"),
            _optional("sample_rate", "INT"),
            _optional("overlap", "FLOAT"),
            _optional("dtype", "COMBO"),
            _optional("keep_loaded", "BOOLEAN"),
        ),
        (("audio", "AUDIO"), ("report", "STRING")),
        (400, 430),
    ),
)
TARGETS: Mapping[str, OurNode] = {target.node_id: target for target in _TARGETS}
