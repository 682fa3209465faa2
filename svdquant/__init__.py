"""SVDQuant checkpoints and layers of Nunchaku: what they hold, and how it is laid out.

Knows torch and the file format, but neither ComfyUI, comfy-kitchen nor the nunchaku package.
Names are imported on first use, so importing the package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import Checkpoint, PlacedLayer, Placement, describe, read_checkpoint
    from .convert import (
        convert_awq,
        convert_svdq,
        planar_modulation,
        split_qkv,
        split_w13,
    )
    from .errors import CheckpointError
    from .layers import Layer
    from .linears import AwqLinear, SvdqLinear

_HOMES = {
    "AwqLinear": "linears",
    "Checkpoint": "checkpoint",
    "CheckpointError": "errors",
    "Layer": "layers",
    "PlacedLayer": "checkpoint",
    "Placement": "checkpoint",
    "SvdqLinear": "linears",
    "convert_awq": "convert",
    "convert_svdq": "convert",
    "describe": "checkpoint",
    "planar_modulation": "convert",
    "read_checkpoint": "checkpoint",
    "split_qkv": "convert",
    "split_w13": "convert",
}

__all__ = [
    "AwqLinear",
    "Checkpoint",
    "CheckpointError",
    "Layer",
    "PlacedLayer",
    "Placement",
    "SvdqLinear",
    "convert_awq",
    "convert_svdq",
    "describe",
    "planar_modulation",
    "read_checkpoint",
    "split_qkv",
    "split_w13",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
