"""Nodes of ComfyUI_QwenVL, SCG_LocalVLM, and ComfyUI_Qwen2-VL-Instruct with its heirs -> QwenVL."""

from __future__ import annotations

from .qwenvl_fields import ATTEND, ATTENDS, CUSTOM, KEEP, KEEPS, OWN, SAMPLING, SEED, WIDGETS
from .qwenvl_values import local, pixels, resolution
from .rules import Field, Rule, as_integer, as_number, as_switch, as_text, choice
from .widgets import Layout, Widget, integer, number, one_of, seed, switch, text

_BITS = {"none": "none", "8bit": "8-bit", "4bit": "4-bit"}
_SHORT = Widget("quantization", one_of("none", "4bit", "8bit"))

_SAMPLES = switch("do_sample")
_MODEL, _SYSTEM, _PROMPT = text("model"), text("system"), text("prompt")
_HEAT, _PENALTY, _NEW = (
    number("temperature"),
    number("repetition_penalty"),
    integer("max_new_tokens"),
)
_ALL_SAMPLING = (
    _SAMPLES,
    _HEAT,
    number("top_p"),
    integer("top_k"),
    number("min_p"),
    _PENALTY,
    _NEW,
)
_BYPASS = switch("bypass")
_PATH = Widget("video_path", lambda value: value is None or isinstance(value, str))
_SIZE = Widget("image_resolution", lambda value: isinstance(value, str) and "x28x28" in value)
_THREADS = Widget("thread_count", lambda value: isinstance(value, (str, int)))
_CACHED = (
    Widget("image_quality", one_of("fast", "balanced", "high", "ultra")),
    switch("enable_image_cache"),
)


def _ends(*more: Widget) -> tuple[tuple[Widget, ...], ...]:
    """What may follow the seed: more widgets, and the path that a later version added."""
    return (*seed(), *more), (*seed(), *more, _PATH)


_TEXT = text("text")
_SHORT_HEAD = (_TEXT, _MODEL, _SHORT)
_SYSTEM_HEAD = (_SYSTEM, *_SHORT_HEAD)
_LOCAL_LAYOUTS = tuple(
    Layout((*head, *end))
    for head, ends in (
        ((*_SYSTEM_HEAD, ATTENDS, *_CACHED, KEEPS, _BYPASS, *_ALL_SAMPLING), _ends()),
        ((*_SYSTEM_HEAD, ATTENDS, KEEPS, _BYPASS, *_ALL_SAMPLING), _ends(_SIZE)),
        ((*_SYSTEM_HEAD, ATTENDS, KEEPS, _BYPASS, *_ALL_SAMPLING), _ends(_SIZE, _THREADS)),
        ((*_SYSTEM_HEAD, ATTENDS, KEEPS, _BYPASS, *_ALL_SAMPLING), _ends()),
        ((*_SYSTEM_HEAD, KEEPS, _BYPASS, *_ALL_SAMPLING), _ends()),
        ((*_SYSTEM_HEAD, KEEPS, _BYPASS, _HEAT, _NEW, _PENALTY), _ends()),
        ((*_SYSTEM_HEAD, KEEPS, _BYPASS, _HEAT, _NEW), _ends()),
        ((*_SHORT_HEAD, KEEPS, _HEAT, _NEW), _ends()),
    )
    for end in ends
)
_TEXT_HEAD = (_SYSTEM, _PROMPT, _MODEL, _SHORT)
_TEXT_LAYOUTS = tuple(
    Layout((*_TEXT_HEAD, *rest, *seed()))
    for rest in (
        (ATTENDS, KEEPS, _BYPASS, *_ALL_SAMPLING),
        (KEEPS, _BYPASS, *_ALL_SAMPLING),
        (KEEPS, _BYPASS, _HEAT, _NEW, _PENALTY),
        (KEEPS, _BYPASS, _HEAT, _NEW),
        (KEEPS, _HEAT, _NEW),
    )
)
_LOCAL_FIELDS = (
    Field("system", "system_prompt", as_text),
    Field("text", "prompt", as_text),
    Field("prompt", "prompt", as_text),
    Field("quantization", "engine.quantization", choice(_BITS), linkable=False),
    ATTEND,
    KEEP,
    SEED,
    *SAMPLING,
    Field("top_k", "sampling.top_k", as_integer(0, 1000)),
    Field("min_p", "sampling.min_p", as_number(0.0, 1.0)),
    Field("max_new_tokens", "max_tokens", as_integer(1, 131072)),
    Field("image_resolution", "image_quality", resolution, linkable=False),
    Field("image_quality", "image_quality", as_text),
    Field("enable_image_cache", "enable_image_cache", as_switch),
)

LOCALVLM_RULES = (
    Rule(
        ("Qwen2VL", "Qwen2.5VL", "QwenVL"),
        "VivaceQwenVL",
        _LOCAL_LAYOUTS,
        _LOCAL_FIELDS,
        {**CUSTOM, "image_quality": "ultra"},
        ignored=frozenset({"thread_count"}),
        finish=local,
        widgets=WIDGETS,
        own=OWN.__contains__,
    ),
    Rule(
        ("Qwen2.5", "Qwen"),
        "VivaceQwenVL",
        _TEXT_LAYOUTS,
        _LOCAL_FIELDS,
        CUSTOM,
        finish=local,
        widgets=WIDGETS,
        own=OWN.__contains__,
    ),
    Rule(
        ("Qwen2_VQA", "Qwen3_VQA"),
        "VivaceQwenVL",
        (
            Layout(
                (
                    *_SHORT_HEAD,
                    KEEPS,
                    _HEAT,
                    _NEW,
                    integer("min_pixels"),
                    integer("max_pixels"),
                    *seed(),
                    Widget("attention", one_of("eager", "sdpa", "flash_attention_2"), True),
                )
            ),
        ),
        (
            *(
                item
                for item in _LOCAL_FIELDS
                if item.old not in ("image_resolution", "image_quality")
            ),
            Field("attention", "engine.attention", as_text),
            Field("max_pixels", "image_quality", pixels, linkable=False),
        ),
        CUSTOM,
        ignored=frozenset({"min_pixels"}),
        finish=local,
        widgets=WIDGETS,
        own=OWN.__contains__,
    ),
)
