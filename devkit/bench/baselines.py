"""What the LoRA engine is measured against, besides the naive pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

Files = Sequence[tuple[Path, float]]
PAGE = 4096


def read_tensors(files: Files, device: str) -> list[dict[str, Tensor]]:
    """Read every tensor of the files to a device with `safetensors`, and do nothing else.

    On the CPU its tensors view a memory map; the copies make it read them.
    """
    result: list[dict[str, Tensor]] = []
    for path, _ in files:
        with safe_open(path, framework="pt", device=device) as file:
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
        if device == "cpu":
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        result.append(tensors)
    return result


def comfyui_loader(model: Any, files: Files) -> Any:
    """Apply files as ComfyUI's LoRA loader node does, and return the patched clone.

    Its tensors view memory maps of the files: what the disk has to give is read when the weights
    are merged, which is not part of this.
    """
    import comfy.lora
    import comfy.lora_convert
    import comfy.utils

    patched = model
    for path, strength in files:
        content = comfy.utils.load_torch_file(str(path), safe_load=True)
        keys = comfy.lora.model_lora_keys_unet(patched.model, {})
        loaded = comfy.lora.load_lora(comfy.lora_convert.convert_lora(content), keys)
        patched = patched.clone()
        patched.add_patches(loaded, strength)
    return patched


def comfyui_loader_and_pages(model: Any, files: Files) -> Any:
    """`comfyui_loader`, then one access to every page of its tensors, without copying them."""
    patched = comfyui_loader(model, files)
    for tensor in patch_tensors(patched):
        tensor.flatten()[:: PAGE // tensor.element_size()].sum()
    return patched


def patch_tensors(patched: Any) -> list[Tensor]:
    """The tensors of a patcher's weight patches."""
    return [
        value
        for patches in patched.patches.values()
        for patch in patches
        for value in patch[1].weights
        if isinstance(value, Tensor)
    ]
