"""Puts the text encoder's part of LoRA files on a CLIP, as ComfyUI's own loader does.

Which names a text encoder has, and what they change, is ComfyUI's knowledge; here is added which
tensors of a file found no place.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...lora.text_encoder_part import read_text_encoder
from .applied_loras import AppliedLora, record_loras

if TYPE_CHECKING:
    import torch
    from comfy.sd import CLIP

log = logging.getLogger(__name__)

_SHOWN = 3


@dataclass(frozen=True)
class EncoderPlacement:
    """What of one file goes onto a text encoder."""

    path: Path
    strength: float
    modules: int
    left: tuple[str, ...]
    """Tensors for which this text encoder has no module."""

    def line(self) -> str:
        """What happens to the text encoder, in one line."""
        text = f"text encoder at strength {self.strength:g}: {self.modules} modules"
        if self.left:
            more = len(self.left) - _SHOWN
            names = ", ".join(self.left[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
            text += f", {len(self.left)} tensors not applied, as it has no such module: {names}"
        return text


def apply_to_text_encoder(
    clip: CLIP, loras: Sequence[tuple[Path, float]], strict: bool = False
) -> tuple[CLIP, list[EncoderPlacement]]:
    """A clone of `clip` with what these LoRAs have for it, or `clip` itself if that is nothing.

    Args:
        clip: the text encoder, which is not changed.
        loras: file and strength of each; files without a part for a text encoder are left out.
        strict: whether a tensor that finds no place is an error.

    Raises:
        ValueError: a file cannot be read (`LoraError`), or, with `strict`, a tensor has no place.
    """
    from comfy.lora import model_lora_keys_clip

    key_map = model_lora_keys_clip(clip.cond_stage_model, {})
    changed, placements = clip, []
    for path, strength in loras:
        stored = read_text_encoder(path) if strength else {}
        if not stored:
            continue
        patches, left = _patches(stored, key_map)
        if strict and left:
            raise ValueError(
                f"{path}: {len(left)} tensors are for another text encoder (first: {left[0]})."
                " Switch `strict` off to apply the rest, or disconnect `clip`."
            )
        if patches:
            changed = clip.clone() if changed is clip else changed
            changed.add_patches(patches, strength)
            record_loras(changed.patcher, [AppliedLora(path.name, strength, len(patches))])
        placement = EncoderPlacement(path, strength, len(patches), tuple(left))
        log.info("%s: %s", path, placement.line())
        placements.append(placement)
    return changed, placements


def _patches(
    stored: dict[str, torch.Tensor], key_map: dict[str, str]
) -> tuple[dict[str, object], list[str]]:
    """ComfyUI's patches by weight, and the tensors that it has no use for."""
    from comfy.lora import load_lora
    from comfy.lora_convert import convert_lora

    tensors = convert_lora(stored)
    patches = load_lora(tensors, key_map, log_missing=False)
    used = tuple(f"{stem}." for stem, weight in key_map.items() if weight in patches)
    return patches, [name for name in tensors if not name.startswith(used)]
