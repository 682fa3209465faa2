"""Nodes of ComfyUI-QwenVL up to 2.2.0 -> QwenVL."""

from __future__ import annotations

from .qwenvl_fields import ATTEND, ATTENDS, CUSTOM, KEEP, KEEPS, OWN, SAMPLING, SEED, WIDGETS
from .qwenvl_values import compiled, enhanced, preset
from .rules import Field, Rule, as_integer, as_text, choice
from .widgets import Layout, Widget, integer, number, one_of, seed, switch, text

_LONG_BITS = {
    "None (FP16)": "none",
    "8-bit (Balanced)": "8-bit",
    "4-bit (VRAM-friendly)": "4-bit",
}
_VIDEO = Field("video", "video", lambda value, _: value)
_TOKENS = Field("max_tokens", "max_tokens", as_integer(1, 131072))
_LONG_QUANTIZATION = Field(
    "quantization", "engine.quantization", choice(_LONG_BITS), linkable=False
)
_ADVANCED = (
    Field("use_torch_compile", "engine.compile_vision", compiled, linkable=False),
    Field("use_torch_compile", "engine.compile_decode", compiled, linkable=False),
    Field("frame_count", "max_frames", as_integer(1, 768)),
)
# These nodes took a fixed number of frames, evenly spread, whatever the video's rate.
_FRAMES = {"sample_fps": 24.0, "max_frames": 16}
_AILAB = {**CUSTOM, **_FRAMES, "image_quality": "ultra"}


_LONG = Widget("quantization", one_of(*_LONG_BITS))
_HEAD = (text("model_name"), _LONG)
_ADVANCED_TAIL = (
    text("preset_prompt"),
    text("custom_prompt"),
    integer("max_tokens"),
    number("temperature"),
    number("top_p"),
    integer("num_beams"),
    number("repetition_penalty"),
    integer("frame_count"),
)
_BASIC_TAIL = (text("preset_prompt"), text("custom_prompt"), integer("max_tokens"), KEEPS)

AILAB_RULES = (
    Rule(
        ("AILab_QwenVL",),
        "VivaceQwenVL",
        (
            Layout((*_HEAD, ATTENDS, *_BASIC_TAIL, *seed())),
            Layout((*_HEAD, *_BASIC_TAIL, *seed())),
        ),
        (_LONG_QUANTIZATION, ATTEND, _TOKENS, KEEP, SEED, _VIDEO),
        {
            **_AILAB,
            "sampling.temperature": 0.6,
            "sampling.top_p": 0.9,
            "sampling.repetition_penalty": 1.2,
        },
        finish=preset,
        widgets=WIDGETS,
        own=OWN.__contains__,
    ),
    Rule(
        ("AILab_QwenVL_Advanced",),
        "VivaceQwenVL",
        (
            Layout(
                (
                    *_HEAD,
                    ATTENDS,
                    switch("use_torch_compile"),
                    text("device"),
                    *_ADVANCED_TAIL,
                    KEEPS,
                    *seed(),
                )
            ),
            Layout((*_HEAD, *_ADVANCED_TAIL, text("device"), KEEPS, *seed())),
        ),
        (
            _LONG_QUANTIZATION,
            ATTEND,
            _TOKENS,
            KEEP,
            SEED,
            *SAMPLING,
            *_ADVANCED,
            _VIDEO,
        ),
        _AILAB,
        finish=preset,
        widgets=WIDGETS,
        own=OWN.__contains__,
    ),
    Rule(
        ("AILab_QwenVL_PromptEnhancer",),
        "VivaceQwenVL",
        (
            Layout(
                (
                    *_HEAD,
                    ATTENDS,
                    switch("use_torch_compile"),
                    text("device"),
                    text("prompt_text"),
                    text("enhancement_style"),
                    text("custom_system_prompt"),
                    integer("max_tokens"),
                    number("temperature"),
                    number("top_p"),
                    number("repetition_penalty"),
                    KEEPS,
                    *seed(),
                )
            ),
        ),
        (
            _LONG_QUANTIZATION,
            ATTEND,
            _TOKENS,
            KEEP,
            SEED,
            *SAMPLING,
            *_ADVANCED[:2],
            Field("prompt_text", "prompt", as_text),
        ),
        CUSTOM,
        finish=enhanced,
        widgets=WIDGETS,
        own=OWN.__contains__,
    ),
)
