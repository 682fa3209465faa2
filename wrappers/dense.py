"""LoRAs on models with ordinary weights, as ComfyUI's own weight patches.

This is the one place where LoRA files meet a `ModelPatcher`; nodes call `apply_loras` and know no
more. ComfyUI merges the patches when it loads the model and undoes them exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.lora
import comfy.lora_convert
import comfy.utils

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

log = logging.getLogger(__name__)


def apply_loras(model: ModelPatcher, loras: Sequence[tuple[Path, float]]) -> ModelPatcher:
    """A clone of `model` with each LoRA patched in; `model` itself when there are none.

    Args:
        model: the model, which is not changed.
        loras: file and strength of each; the weights become
            `W + sum(strength * alpha / rank * lora_up @ lora_down)`.

    Raises:
        ValueError: a file cannot be read, or holds nothing for this model.
    """
    if not loras:
        return model
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    # Every file is read before the first patch is added: an error leaves nothing half done.
    patches = [(path, _patches_of(path, key_map), strength) for path, strength in loras]
    patched = model.clone()
    for path, patch, strength in patches:
        applied = patched.add_patches(patch, strength)
        if not applied:
            raise ValueError(
                f"The LoRA '{path.name}' matches no weight of this model"
                f" ({type(model.model).__name__}). It was made for another model."
            )
        log.info("LoRA %s: %d weights patched at strength %g", path.name, len(applied), strength)
    return patched


def _patches_of(path: Path, key_map: dict[str, Any]) -> dict[Any, Any]:
    try:
        state_dict = comfy.utils.load_torch_file(str(path), safe_load=True)
    except Exception as error:  # ComfyUI raises whatever its many readers raise
        raise ValueError(f"The LoRA file '{path}' cannot be read: {error}") from error
    state_dict = comfy.lora_convert.convert_lora(state_dict)
    return comfy.lora.load_lora(state_dict, key_map)
