"""The dtype that a layer computes with its weight from.

With dynamic VRAM (comfy-aimdo) a layer takes the file's own tensor, and casts it to the model's
dtype each time it is paged in: what `weight_dtype` makes fp8 is 16 bits until then.
"""

from __future__ import annotations

from typing import Any

import torch
from comfy import memory_management
from torch import Tensor


def used_dtype(module: Any) -> torch.dtype:
    """Return the dtype that a plain weight has on the device, before it is cast to the input's."""
    stored = module.weight.dtype
    if not getattr(memory_management, "aimdo_enabled", False):
        return stored
    # ComfyUI's name: `comfy.ops` and `archive_model_dtypes` set it.
    return getattr(module, "weight_comfy_model_dtype", None) or stored


def as_used(module: Any, stored: Tensor) -> Tensor:
    """Return a plain weight as it is on the device: rounded, where paging it in rounds it."""
    return stored.detach().to(used_dtype(module))
