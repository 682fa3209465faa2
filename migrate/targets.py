"""The inputs and outputs of our nodes, in the order in which the editor saves them.

`tests/server/migrate/test_targets.py` compares this table with the real schemas and the editor.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .widgets import CONTROL

NO_PRESET = "None (my prompt only)"


@dataclass(frozen=True)
class Input:
    """One input of ours."""

    name: str
    type: str
    default: Any = None
    widget: bool = True
    optional: bool = False
    when: tuple[str, str] | None = None
    """The choice, and its value, that this input belongs to."""
    slots: int = 0
    """For an input that grows: how many sockets there can be; their numbers follow the name."""


@dataclass(frozen=True)
class Target:
    """One node of ours."""

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
                found[item.name] = values.get(item.name, item.default)
                if item.name == "seed":
                    found[CONTROL] = values.get(CONTROL, "fixed")
        return found

    def _chosen(self, when: tuple[str, str], values: Mapping[str, Any]) -> bool:
        name, option = when
        default = next(item.default for item in self.inputs if item.name == name)
        return values.get(name, default) == option


def _socket(name: str, type_: str, optional: bool = False, slots: int = 0) -> Input:
    return Input(name, type_, widget=False, optional=optional, slots=slots)


def _optional(name: str, type_: str, default: Any, when: tuple[str, str] | None = None) -> Input:
    return Input(name, type_, default, optional=True, when=when)


_LOCAL, _SERVER, _CUSTOM = ("engine", "local"), ("engine", "server"), ("sampling", "custom")
_CHOICE = "COMFY_DYNAMICCOMBO_V3"
_GRADIENT, _CHECKER, _NOISE = (("pattern", name) for name in ("gradient", "checker", "noise"))
_FORM = "answer_format"
_AS_JSON, _AS_SCHEMA = (_FORM, "JSON"), (_FORM, "JSON schema")
_ENGINE = (
    Input("engine", _CHOICE, "local"),
    Input("engine.model", "COMBO", "", when=_LOCAL),
    _optional("engine.quantization", "COMBO", "none", _LOCAL),
    _optional("engine.dtype", "COMBO", "bfloat16", _LOCAL),
    _optional("engine.attention", "COMBO", "auto", _LOCAL),
    _optional("engine.compile_vision", "COMBO", "auto", _LOCAL),
    _optional("engine.compile_decode", "COMBO", "auto", _LOCAL),
    _optional("engine.keep_loaded", "BOOLEAN", True, _LOCAL),
    Input("engine.address", "STRING", "http://localhost:8000/v1", when=_SERVER),
    Input("engine.server_model", "STRING", "", when=_SERVER),
    _optional("engine.api_key_variable", "STRING", "", _SERVER),
    _optional("engine.timeout", "FLOAT", 180.0, _SERVER),
    _optional("engine.concurrency", "INT", 4, _SERVER),
)
_ANSWER = (
    _optional("image_quality", "COMBO", "balanced"),
    _optional("enable_image_cache", "BOOLEAN", True),
    _optional("max_tokens", "INT", 512),
    _optional("thinking_budget", "INT", -1),
    _optional("sampling", _CHOICE, "model default"),
    _optional("sampling.temperature", "FLOAT", 0.7, _CUSTOM),
    _optional("sampling.top_p", "FLOAT", 0.8, _CUSTOM),
    _optional("sampling.top_k", "INT", 20, _CUSTOM),
    _optional("sampling.min_p", "FLOAT", 0.0, _CUSTOM),
    _optional("sampling.repetition_penalty", "FLOAT", 1.0, _CUSTOM),
    _optional("seed", "INT", 0),
)
_MODE = (_optional("mode", "COMBO", "auto"), _optional("strict", "BOOLEAN", False))

TARGETS: Mapping[str, Target] = {
    "VivaceLoraStack": Target(
        (
            _socket("model", "MODEL"),
            _socket("lora_stack", "LORA_STACK", optional=True),
            _socket("text", "STRING", optional=True),
            _socket("clip", "CLIP", optional=True),
            Input("rows", "VIVACE_LORA_ROWS", ()),
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
    "VivaceLoraLoader": Target(
        (
            _socket("model", "MODEL"),
            Input("lora", "COMBO"),
            Input("strength", "FLOAT", 1.0),
            *_MODE,
        ),
        (("model", "MODEL"), ("report", "STRING")),
        (270, 102),
    ),
    "VivaceBlankImage": Target(
        (
            Input("width", "INT", 1024),
            Input("height", "INT", 1024),
            Input("batch_size", "INT", 1),
            Input("color", "STRING", "#000000"),
            _optional("pattern", _CHOICE, "solid"),
            *(
                _optional("pattern.second_color", "STRING", "#ffffff", when)
                for when in (_GRADIENT, _CHECKER, _NOISE)
            ),
            _optional("pattern.direction", "COMBO", "right", _GRADIENT),
            _optional("pattern.cell", "INT", 64, _CHECKER),
            _optional("pattern.seed", "INT", 0, _NOISE),
            _optional("pattern.colored", "BOOLEAN", False, _NOISE),
        ),
        (("image", "IMAGE"), ("mask", "MASK")),
        (270, 150),
    ),
    "VivaceImageIsEmpty": Target(
        (
            _socket("image", "IMAGE", optional=True),
            _socket("mask", "MASK", optional=True),
            Input("uniform_within", "FLOAT", 0.01),
            Input("black_below", "FLOAT", 0.02),
            Input("white_above", "FLOAT", 0.98),
            Input("transparent_above", "FLOAT", 0.98),
        ),
        (("is_empty", "BOOLEAN"), ("each", "BOOLEAN"), ("details", "STRING")),
        (270, 74),
    ),
    "VivacePreviewIf": Target(
        (
            _socket("image", "IMAGE"),
            _socket("replacement", "IMAGE", optional=True),
            Input("condition", "BOOLEAN", True),
            Input("action", "COMBO", "preview"),
            Input("filename_prefix", "STRING", "ComfyUI"),
            _optional("otherwise", "COMBO", "pass on"),
        ),
        (("image", "IMAGE"),),
        (270, 150),
    ),
    "VivaceQwenVL": Target(
        (
            _socket("images.image", "IMAGE", optional=True, slots=32),
            _socket("video", "IMAGE", optional=True),
            _socket("api_key", "VIVACE_API_KEY", optional=True),
            *_ENGINE,
            _optional("preset", "COMBO", NO_PRESET),
            _optional("prompt", "STRING", ""),
            _optional("system_prompt", "STRING", ""),
            *_ANSWER,
            _optional("fps", "FLOAT", 24.0),
            _optional("sample_fps", "FLOAT", 2.0),
            _optional("max_frames", "INT", 64),
        ),
        (("text", "STRING"), ("thinking", "STRING"), ("report", "STRING")),
        (400, 512),
    ),
    "VivaceGenerateText": Target(
        (
            _socket("images.image", "IMAGE", optional=True, slots=32),
            _socket("chat", "VIVACE_CHAT", optional=True),
            _socket("api_key", "VIVACE_API_KEY", optional=True),
            *_ENGINE,
            Input("prompt", "STRING", ""),
            _optional("system_prompt", "STRING", ""),
            *_ANSWER,
            _optional(_FORM, _CHOICE, "text"),
            _optional(f"{_FORM}.retries", "INT", 1, _AS_JSON),
            Input(f"{_FORM}.schema", "STRING", '{"type": "object"}', when=_AS_SCHEMA),
            _optional(f"{_FORM}.retries", "INT", 1, _AS_SCHEMA),
            _optional("stop", "STRING", ""),
            _optional("price_prompt", "FLOAT", 0.0),
            _optional("price_answer", "FLOAT", 0.0),
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
    "VivaceApiKey": Target(
        (
            Input("source", "COMBO", "environment variable"),
            Input("key_name", "STRING", ""),
        ),
        (("api_key", "VIVACE_API_KEY"),),
        (270, 82),
    ),
    "VivacePromptManager": Target(
        (
            *(
                _optional(name, "STRING", "")
                for name in ("prompt", "positive", "negative", "variables")
            ),
            _optional("seed", "INT", 0),
        ),
        (("positive", "STRING"), ("negative", "STRING"), ("name", "STRING"), ("seed", "INT")),
        (400, 400),
    ),
    "VivacePreviewOutputs": Target(
        (
            _socket("values.value", "*", optional=True, slots=20),
            _optional("summary_format", "COMBO", "Markdown"),
        ),
        (("summary", "STRING"),),
        (270, 82),
    ),
    "VivaceGenerateMusic": Target(
        (
            _socket("melody", "AUDIO", optional=True),
            _socket("continue_from", "AUDIO", optional=True),
            Input("model", "COMBO", ""),
            Input("prompt", "STRING", ""),
            Input("duration", "FLOAT", 10.0),
            _optional("include_given", "BOOLEAN", True),
            _optional("variations", "INT", 1),
            _optional("guidance_scale", "FLOAT", 3.0),
            _optional("temperature", "FLOAT", 1.0),
            _optional("top_k", "INT", 250),
            _optional("seed", "INT", 0),
            _optional("sample_rate", "INT", 0),
            _optional("overlap", "FLOAT", 12.0),
            _optional("dtype", "COMBO", "auto"),
            _optional("keep_loaded", "BOOLEAN", True),
        ),
        (("audio", "AUDIO"), ("report", "STRING")),
        (400, 430),
    ),
}
