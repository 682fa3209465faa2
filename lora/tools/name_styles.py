"""The ways to name a LoRA's tensors that the tools write.

``comfyui``: ``diffusion_model.<ComfyUI's path>.lora_down.weight``, ``.lora_up.weight``, ``.alpha``.
``kohya``: the same suffixes behind ``lora_unet_<the path with underscores>``. Both have fused
projections (Z-Image's ``attention.qkv``) as one, which every ComfyUI loads.
``peft``: ``transformer.<diffusers' path>.lora_A.weight`` and ``.lora_B.weight`` for each
projection, with the scale in B, as diffusers saves.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..mapping.architecture import Architecture

STYLES = ("comfyui", "kohya", "peft")


@dataclass(frozen=True)
class StyleNames:
    """The names of one module's tensors in a style."""

    stem: str
    down: str
    up: str
    magnitude: str

    def of(self, suffix: str) -> str:
        """The full name of a tensor."""
        return f"{self.stem}.{suffix}"


def names(style: str, architecture: Architecture, module: str, part: str | None) -> StyleNames:
    """The names of a module, or of the part of it that a style has by itself."""
    if style == "peft":
        stem = f"transformer.{_in_diffusers(architecture, module, part)}"
        return StyleNames(stem, "lora_A.weight", "lora_B.weight", "lora_magnitude_vector.weight")
    stem = f"diffusion_model.{module}"
    if style == "kohya":
        stem = f"lora_unet_{module.replace('.', '_')}"
    return StyleNames(stem, "lora_down.weight", "lora_up.weight", "dora_scale")


def parts(style: str, architecture: Architecture, module: str) -> tuple[str | None, ...]:
    """What a module is made of in a style: its parts where they are named one by one."""
    if style == "peft" and module in architecture.parts:
        return tuple(block.part for block in architecture.parts[module])
    return (None,)


def style_of(keys: Iterable[str]) -> str:
    """The style that a file's names are nearest to."""
    first = next(iter(keys), "")
    if first.startswith(("lora_unet_", "lora_transformer_", "lycoris_")):
        return "kohya"
    return "peft" if first.startswith(("transformer.", "base_model.")) else "comfyui"


def _in_diffusers(architecture: Architecture, module: str, part: str | None) -> str:
    if architecture.name != "z_image":
        return module
    if part is not None:
        return f"{module.removesuffix('qkv')}to_{part}"
    for ours, theirs in (
        (".attention.out", ".attention.to_out.0"),
        (".attention.q_norm", ".attention.norm_q"),
        (".attention.k_norm", ".attention.norm_k"),
    ):
        if module.endswith(ours):
            return module.removesuffix(ours) + theirs
    for ours in ("x_embedder", "final_layer"):
        if module.startswith(ours):
            return f"all_{ours}.2-1{module.removeprefix(ours)}"
    return module
