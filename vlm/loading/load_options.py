"""How a local model is loaded, in the words of transformers."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch

from ...defaults import VLM
from .graph_compiler import COMPILE_MODES

DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
QUANTIZATIONS = ("none", "8-bit", "4-bit")
ATTENTIONS = ("auto", "sdpa", "flash_attention_2", "eager")
# Parts that stay as they are: the head, and all names that vision towers have. transformers 5 looks
# for them at the start of a module's name, 4 anywhere in it.
_TOWERS = ("visual", "vision_tower", "vision_model")
_NOT_QUANTIZED = ("lm_head", *_TOWERS, *(f"model.{name}" for name in _TOWERS))


class LoadError(ValueError):
    """A model cannot be loaded as asked; the message says what to do."""


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model.

    Attributes:
        dtype: of what is not quantized.
        quantization: "none" (as stored, which may be fp8), "8-bit" or "4-bit" (NF4). The vision
            tower never is.
        attention: "auto" leaves the choice to transformers.
        device: to load to.
        compile_vision: as `VisionTower` takes it.
        compile_decode: as `Stepper` takes it.

    Raises:
        ValueError: an unknown choice.
    """

    dtype: str = VLM["engine.dtype"]
    quantization: str = VLM["engine.quantization"]
    attention: str = VLM["engine.attention"]
    device: str = "cpu"
    compile_vision: str = VLM["engine.compile_vision"]
    compile_decode: str = VLM["engine.compile_decode"]

    def __post_init__(self) -> None:
        for name, choices in (
            ("dtype", tuple(DTYPES)),
            ("quantization", QUANTIZATIONS),
            ("attention", ATTENTIONS),
            ("compile_decode", COMPILE_MODES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(choices)}")


def from_pretrained_options(options: LoadOptions, stored: str | None) -> dict[str, Any]:
    """Arguments for the Auto classes.

    Args:
        stored: the quantization that the model's files are in, None if they are in none.

    Raises:
        LoadError: a library is missing, or the files are quantized in another way already.
    """
    given: dict[str, Any] = {
        "dtype": DTYPES[options.dtype],
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
    }
    if options.attention == "flash_attention_2":
        _require("flash_attn", "attention flash_attention_2", "Install it, or choose sdpa")
    if options.attention != "auto":
        given["attn_implementation"] = options.attention
    if options.quantization == "none":
        return given
    if stored is not None:
        raise LoadError(
            f"The model is stored as {stored} and cannot be quantized to {options.quantization}. "
            "Choose quantization none, or a model in bfloat16"
        )
    _require("bitsandbytes", f"quantization {options.quantization}", "Install it, or choose none")
    _require("accelerate", f"quantization {options.quantization}", "Install it, or choose none")
    given["quantization_config"] = _bitsandbytes(options)
    given["device_map"] = {"": options.device}
    return given


def _bitsandbytes(options: LoadOptions) -> Any:
    from transformers import BitsAndBytesConfig

    if options.quantization == "8-bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=list(_NOT_QUANTIZED))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=DTYPES[options.dtype],
        llm_int8_skip_modules=list(_NOT_QUANTIZED),
    )


def _require(module: str, purpose: str, remedy: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise LoadError(f"The package {module}, needed for {purpose}, is not installed. {remedy}")
