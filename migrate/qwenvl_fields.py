"""What the rules for all Qwen-VL nodes share."""

from __future__ import annotations

from .our_nodes import NO_PRESET
from .qwenvl_values import attention
from .qwenvl_values import seed as seed_value
from .rules import Field, as_number, as_switch
from .widgets import CONTROL, Widget, one_of, switch

SAMPLING = (
    Field("temperature", "sampling.temperature", as_number(0.0, 5.0)),
    Field("top_p", "sampling.top_p", as_number(0.01, 1.0)),
    Field("repetition_penalty", "sampling.repetition_penalty", as_number(0.1, 5.0)),
)

SEED = Field("seed", "seed", seed_value)

KEEP = Field("keep_model_loaded", "engine.keep_loaded", as_switch)

ATTEND = Field("attention_mode", "engine.attention", attention, linkable=False)

CUSTOM = {"engine": "local", "preset": NO_PRESET, "sampling": "custom"}

# Inputs that the functions of `qwenvl_values.py` read.
OWN = frozenset(
    {"model_name", "model", "device", "num_beams", "do_sample", "preset_prompt", "bypass", CONTROL}
    | {"custom_prompt", "custom_system_prompt", "enhancement_style", "video_path"}
)

WIDGETS = {
    "model_name": "engine.model",
    "model": "engine.model",
    "preset_prompt": "preset",
    "custom_prompt": "prompt",
    "custom_system_prompt": "system_prompt",
}

ATTENDS = Widget("attention_mode", one_of("auto", "sage", "flash_attention_2", "sdpa", "eager"))

KEEPS = switch("keep_model_loaded")
