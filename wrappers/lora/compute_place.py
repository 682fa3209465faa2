"""Where LoRA files are read to, and where what is computed of them is computed."""

from __future__ import annotations

from typing import cast

import torch
from comfy import memory_management
from comfy.model_management import get_free_memory, get_torch_device

FACTORS_PLACE = torch.device("cpu")
"""Where factors are read to, composed, and kept."""

ROOM = 2**30
"""Free bytes of a GPU with which a weight and what is computed of it surely fit."""


def compute_place() -> torch.device:
    """The device for products of factors and weights, before a model runs.

    Of a plain LoRA nothing is computed: its factors lie in main memory as they are read, or are
    written side by side, once. They are needed there in any case. ComfyUI pages weights in from
    main memory, under dynamic VRAM by way of pinned memory of its own, and to unload is to drop
    the copy on the GPU. By way of the GPU the same bytes would move three times, up, down, and up
    again when the model is loaded, to save a copy at memory speed; and memory that we pin would be
    held twice, out of ComfyUI's budget. So files are read to `FACTORS_PLACE`, on every system.

    What has more to compute than to move goes to the GPU, one layer at a time: the norms of DoRA,
    which read whole base weights, and LoHa and LoKr that are multiplied out. Only the results come
    back. Without dynamic VRAM a model may fill the GPU, and nothing makes room for this: below
    `ROOM` free bytes, and on what is neither NVIDIA's nor AMD's (float64 is not there everywhere),
    main memory is the place.
    """
    device = get_torch_device()
    if device.type != "cuda":
        return FACTORS_PLACE
    dynamic = getattr(memory_management, "aimdo_enabled", False)
    roomy = dynamic or cast(int, get_free_memory(device)) >= ROOM
    return device if roomy else FACTORS_PLACE
