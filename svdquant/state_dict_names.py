"""How converted layers are named in a state_dict: the convention of ComfyUI's quantized files.

A quantized layer has ``weight`` and ``comfy_quant`` (JSON in bytes, with the format), and beside
them, for ``svdquant_w4a4``, ``weight_scale``, ``proj_down``, ``proj_up`` and ``smooth_factor``, and
for ``awq_w4a16``, ``weight_scale`` and ``weight_zeros``. Source: ComfyUI pull request 13580,
comfy-quants and comfy-kitchen's layouts, which write these names. Earlier files have
``weight_zero``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .linears import AwqLinear, SvdqLinear

SVDQ_FORMAT = "svdquant_w4a4"
AWQ_FORMAT = "awq_w4a16"
FORMATS = frozenset({SVDQ_FORMAT, AWQ_FORMAT})
MARKER = "comfy_quant"

_SVDQ_NAMES = {
    "weight": "weight",
    "weight_scale": "scale",
    "proj_down": "proj_down",
    "proj_up": "proj_up",
    "smooth_factor": "smooth_factor",
}
_AWQ_NAMES = {"weight": "weight", "weight_scale": "scale", "weight_zeros": "zeros"}
_EARLIER = {"weight_zero": "weight_zeros"}


def to_state_dict(linear: SvdqLinear | AwqLinear, path: str) -> dict[str, Tensor]:
    """Return the tensors of a layer under their full names. Nothing is copied."""
    if isinstance(linear, SvdqLinear):
        names = _SVDQ_NAMES
        marker: dict[str, Any] = {"format": SVDQ_FORMAT, "act_unsigned": linear.act_unsigned}
    else:
        names = _AWQ_NAMES
        marker = {"format": AWQ_FORMAT, "group_size": linear.group_size}
    found = {f"{path}.{name}": getattr(linear, attribute) for name, attribute in names.items()}
    if linear.bias is not None:
        found[f"{path}.bias"] = linear.bias
    found[f"{path}.{MARKER}"] = torch.tensor(list(json.dumps(marker).encode()), dtype=torch.uint8)
    return found


def marker_of(state_dict: Mapping[str, Tensor], path: str) -> dict[str, Any] | None:
    """Return what ``comfy_quant`` says of a layer, or None if the layer is not quantized.

    Raises:
        ValueError: it is not a JSON object in bytes.
    """
    stored = state_dict.get(f"{path}.{MARKER}")
    if stored is None:
        return None
    try:
        marker = json.loads(stored.view(torch.uint8).cpu().numpy().tobytes())
    except (ValueError, RuntimeError, RecursionError):  # torch's own is for what has no bytes
        marker = None
    if not isinstance(marker, dict):
        raise ValueError(f"{path}.{MARKER} is not a JSON object")
    return marker


def with_current_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same tensors, those with a name of earlier files under that of today."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        path, _, name = key.rpartition(".")
        renamed[f"{path}.{_EARLIER[name]}" if name in _EARLIER else key] = tensor
    return renamed


def from_state_dict(state_dict: Mapping[str, Tensor], path: str) -> SvdqLinear | AwqLinear | None:
    """Return the quantized layer at `path`, or None if it is stored otherwise. Copies nothing.

    Raises:
        ValueError: tensors are missing, or of shapes or types that do not fit together.
    """
    marker = marker_of(state_dict, path)
    stored = None if marker is None else marker.get("format")
    if marker is None or not isinstance(stored, str) or stored not in FORMATS:
        return None
    names = _SVDQ_NAMES if stored == SVDQ_FORMAT else _AWQ_NAMES
    if missing := [name for name in names if f"{path}.{name}" not in state_dict]:
        raise ValueError(f"{path} has no {', '.join(missing)}")
    parts: dict[str, Any] = {names[name]: state_dict[f"{path}.{name}"] for name in names}
    parts["bias"] = state_dict.get(f"{path}.bias")
    if names is _AWQ_NAMES:
        linear = AwqLinear(**parts, group_size=marker.get("group_size", 64))
    else:
        linear = SvdqLinear(**parts, act_unsigned=bool(marker.get("act_unsigned", False)))
    linear.check()
    return linear
