"""What is alive in a server, and what the pack keeps, in numbers."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import torch

from .models import pack_module


def probe() -> dict[str, int]:
    """Counts and bytes after a garbage collection.

    Memory that the C library keeps for later goes back to the system before, since how much that is
    changes by chance.

    `patched_layers` are modules that carry a branch or are watched now, `merged_weights` those of
    which ComfyUI keeps a backup, `tensor_bytes` all memory that tensors refer to.
    """
    mark = pack_module("wrappers.targets.layered_class").CALL
    gc.collect()
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    alive = gc.get_objects()
    tensors = [item for item in alive if issubclass(type(item), torch.Tensor)]
    networks = [item for item in alive if issubclass(type(item), torch.nn.Module)]
    backups = {id(p.backup): len(p.backup) for p in _of(alive, comfy.model_patcher.ModelPatcher)}
    return {
        "objects": len(alive),
        "tensors": len(tensors),
        "tensor_bytes": sum(_storages(tensors).values()),
        "networks": len(_of(networks, comfy.model_base.BaseModel)),
        "patchers": len(_of(alive, comfy.model_patcher.ModelPatcher)),
        "loaded_models": len(comfy.model_management.current_loaded_models),
        "patched_layers": sum(mark in module.__dict__ for module in networks),
        "merged_weights": sum(backups.values()),
        **_kept(),
    }


def _of(items: list[Any], kind: type) -> list[Any]:
    return [item for item in items if issubclass(type(item), kind)]


def _storages(tensors: list[torch.Tensor]) -> dict[int, int]:
    found: dict[int, int] = {}
    for tensor in tensors:
        if tensor.device.type == "cpu" and tensor.layout == torch.strided:
            try:
                storage = tensor.untyped_storage()
                found[storage.data_ptr()] = storage.nbytes()
            except (RuntimeError, NotImplementedError):  # one without memory of its own
                continue
    return found


def _kept() -> dict[str, int]:
    loras = pack_module("lora.loader").CACHE
    session = pack_module("wrappers.vlm.vlm_session")
    images, prompts = session.EMBEDDINGS.statistics, session.PREFIXES.statistics
    return {
        "loras": len(loras),
        "lora_bytes": loras.nbytes,
        "images": images.entries,
        "image_bytes": images.nbytes,
        "image_evictions": images.evictions,
        "beginnings": prompts.entries,
        "prompt_bytes": prompts.nbytes,
    }
