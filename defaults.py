"""The values of our nodes' inputs where nobody gives any: the one table of them.

Schemas, `execute`, migrated workflows and the command line read it, so that a node does the same
wherever a prompt comes from. Inputs below a choice are named as in a prompt, `choice.input`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_ENGINE = {
    "engine": "local",
    "engine.model": "",
    "engine.quantization": "none",
    "engine.dtype": "bfloat16",
    "engine.attention": "auto",
    "engine.compile_vision": "auto",
    "engine.compile_decode": "auto",
    "engine.keep_loaded": True,
    "engine.address": "http://localhost:8000/v1",
    "engine.server_model": "",
    "engine.api_key_variable": "",
    "engine.timeout": 180.0,
    "engine.concurrency": 4,
}
_ANSWER = {
    "image_quality": "balanced",
    "enable_image_cache": True,
    "max_tokens": 512,
    "thinking_budget": -1,
    "sampling": "model default",
    "sampling.temperature": 0.7,
    "sampling.top_p": 0.8,
    "sampling.top_k": 20,
    "sampling.min_p": 0.0,
    "sampling.repetition_penalty": 1.0,
    "seed": 0,
}
NO_PRESET = "None (my prompt only)"
"""The preset that adds nothing; also what is meant where a prompt names none."""

_INSTRUCTION = {"preset": "Detailed description", "prompt": "", "system_prompt": ""}
_LORA = {"mode": "auto", "strict": False}

VLM: Mapping[str, Any] = MappingProxyType({**_ENGINE, **_ANSWER})
"""Of all nodes that ask a language model."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "VivaceApiKey": {"source": "environment variable", "key_name": ""},
    "VivaceBlankImage": {
        "width": 1024,
        "height": 1024,
        "batch_size": 1,
        "color": "#000000",
        "pattern": "solid",
        "pattern.second_color": "#ffffff",
        "pattern.direction": "right",
        "pattern.cell": 64,
        "pattern.seed": 0,
        "pattern.colored": False,
    },
    "VivaceGenerateMusic": {
        "model": "",
        "prompt": "",
        "duration": 10.0,
        "include_given": True,
        "variations": 1,
        "guidance_scale": 3.0,
        "temperature": 1.0,
        "top_k": 250,
        "seed": 0,
        "sample_rate": 0,
        "overlap": 12.0,
        "dtype": "auto",
        "keep_loaded": True,
    },
    "VivaceGenerateText": {
        **VLM,
        "prompt": "",
        "system_prompt": "",
        "answer_format": "text",
        "answer_format.retries": 1,
        "answer_format.schema": '{"type": "object"}',
        "stop": "",
        "price_prompt": 0.0,
        "price_answer": 0.0,
    },
    "VivaceImageIsEmpty": {
        "uniform_within": 0.01,
        "black_below": 0.02,
        "white_above": 0.98,
        "transparent_above": 0.98,
    },
    "VivaceLoadSvdquantModel": {"keep_converted": False},
    "VivaceLoraLoader": {"strength": 1.0, **_LORA},
    "VivaceLoraStack": {"rows": (), **_LORA},
    "VivacePreviewIf": {
        "condition": True,
        "action": "preview",
        "filename_prefix": "ComfyUI",
        "otherwise": "pass on",
    },
    "VivacePreviewOutputs": {"summary_format": "Markdown"},
    "VivacePromptManager": {
        "prompt": "",
        "positive": "",
        "negative": "",
        "variables": "",
        "seed": 0,
    },
    "VivaceQwenVL": {**VLM, **_INSTRUCTION, "fps": 24.0, "sample_fps": 2.0, "max_frames": 64},
    "VivaceQwenVLBatch": {
        **VLM,
        **_INSTRUCTION,
        "folder": "",
        "existing": "skip",
        "subfolders": False,
        "batch_size": 4,
    },
    "VivaceQwenVLCache": {"action": "show", "size.memory_mb": -1, "size.disk_mb": 0},
    "VivaceQwenVLDownload": {"repository": "Qwen/Qwen3-VL-4B-Instruct", "revision": "main"},
    "VivaceResampleAudio": {"sample_rate": 44100},
}
