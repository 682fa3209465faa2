"""LoRA files -> exact low-rank factors, for Qwen-Image and Z-Image.

Knows torch and safetensors' file format, but neither ComfyUI nor the rest of this pack. Names are
imported on first use, so importing the package imports no torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes milliseconds, which the help of a command has not
if TYPE_CHECKING:
    from typing import Any

    from .compose import Composer
    from .errors import LoraError, LoraFileError, LoraFormatError, LoraModelError
    from .examine import inspect
    from .factors.branch import Branch
    from .factors.delta import Delta, Dense, Hadamard, Kronecker, LowRank
    from .factors.dora import Dora, ResolvedDora
    from .info import LoraInfo, lora_info
    from .loader import Entry, Lora, load_lora
    from .mapping.architecture import Architecture
    from .mapping.models import qwen_image, z_image
    from .report import Report, markdown
    from .stack import LoraStack

_HOMES = {
    "Architecture": "mapping.architecture",
    "Branch": "factors.branch",
    "Composer": "compose",
    "Delta": "factors.delta",
    "Dense": "factors.delta",
    "Dora": "factors.dora",
    "Entry": "loader",
    "Hadamard": "factors.delta",
    "Kronecker": "factors.delta",
    "Lora": "loader",
    "LoraError": "errors",
    "LoraFileError": "errors",
    "LoraFormatError": "errors",
    "LoraInfo": "info",
    "LoraModelError": "errors",
    "LoraStack": "stack",
    "LowRank": "factors.delta",
    "Report": "report",
    "ResolvedDora": "factors.dora",
    "inspect": "examine",
    "load_lora": "loader",
    "lora_info": "info",
    "markdown": "report",
    "qwen_image": "mapping.models",
    "z_image": "mapping.models",
}

__all__ = [
    "Architecture",
    "Branch",
    "Composer",
    "Delta",
    "Dense",
    "Dora",
    "Entry",
    "Hadamard",
    "Kronecker",
    "Lora",
    "LoraError",
    "LoraFileError",
    "LoraFormatError",
    "LoraInfo",
    "LoraModelError",
    "LoraStack",
    "LowRank",
    "Report",
    "ResolvedDora",
    "inspect",
    "load_lora",
    "lora_info",
    "markdown",
    "qwen_image",
    "z_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
