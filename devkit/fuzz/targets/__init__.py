"""The kinds of input: one module each, by its name on the command line."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from ..session import Target

NAMES = (
    "safetensors_file",
    "lora_keys",
    "lora_tampered",
    "svdquant_file",
    "lora_rows",
    "prompt_text",
    "workflow_file",
    "prompt_library",
    "server_reply",
    "image_file",
)


def find(name: str) -> Target:
    """The module of a target."""
    return cast("Target", import_module(f".{name}", __name__))
