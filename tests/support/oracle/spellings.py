"""How trainers spell one LoRA: prefixes, other names of modules, suffixes, and where alpha is."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import torch
from torch import Tensor

# Before a dotted path. Trainers and their forks wrap the model, and loaders strip all of these.
DOTTED = (
    "",
    "transformer.",
    "diffusion_model.",
    "model.",
    "unet.",
    "dit.",
    "net.",
    "denoiser.",
    "student.",
    "lora.",
    "lycoris.",
    "pipe.dit.",
    "pipeline.transformer.",
    "default.",
    "module.",
    "module.module._orig_mod.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_forward_module.",
    "model.diffusion_model.",
    "model.transformer.",
    "transformer.transformer.",
    "transformer.diffusion_model.",
    "diffusion_model.transformer.",
    "base_model.model.",
    "base_model.model.model.",
    "base_model.model.transformer.",
    "base_model.model.diffusion_model.",
    "unet.base_model.model.",
    "transformer.base_model.model.",
    "_inner_dit.",
    "inner.dit.",
    "diffusion_model._inner_dit.",
    "diffusion_model.inner.dit.",
    "transformer._inner_dit.",
    "transformer.inner.dit.",
    "base_model.model._inner_dit.",
    "lora_unet.",
    "lora_unet._inner_dit.",
    "lora_transformer.",
)
# Before a path whose dots are underscores.
FLAT = (
    "lora_unet_",
    "lora_unet__",
    "lora_unet__orig_mod_",
    "lora_unet__inner_dit_",
    "lora_unet_inner_dit_",
    "lora_unet_diffusion_model_",
    "lora_unet_transformer_",
    "lora_unet_model_",
    "lora_unet_dit_",
    "lora_transformer_",
    "lora_transformer__inner_dit_",
    "lora_",
    "lycoris_",
    "lycoris_transformer_",
    "diffusion_model.lora_unet_",
)
# What training leaves in the middle of a path; {0} and {1} are its two ends, {2} the suffix.
WRAPPED = (
    "{0}._orig_mod.{1}.{2}",
    "module.{0}._fsdp_wrapped_module.{1}.{2}",
    "{0}._checkpoint_wrapped_module.{1}.{2}",
    "_fsdp_wrapped_module.{0}._checkpoint_wrapped_module._orig_mod.{1}.{2}",
    "base_model.model.{0}.module.{1}.{2}",
    "base_model.model.{0}.{1}.base_layer.{2}",
    "{0}.{1}.default.{2}",
    "transformer.{0}.{1}._orig_mod.{2}",
)


class Names(NamedTuple):
    """Suffixes of the two factors; `scaled` tells whether scales of 8 bits may follow them."""

    down: str
    up: str
    scaled: bool = False


FACTORS = (
    Names("lora_A.weight", "lora_B.weight", True),
    Names("lora_down.weight", "lora_up.weight", True),
    Names("lora.down.weight", "lora.up.weight", True),
    Names("lora.A.weight", "lora.B.weight", True),
    Names("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    Names("lora_A", "lora_B"),
    Names("lora_down", "lora_up"),
    Names("lora_A.default.weight", "lora_B.default.weight"),
    Names("lora_A.default_0.weight", "lora_B.default_0.weight"),
    Names("lora_A.turbo_v2.weight", "lora_B.turbo_v2.weight"),
    Names("lora_A.default", "lora_B.default"),
    Names("lora_down.default.weight", "lora_up.default.weight"),
    Names("lora_A._fsdp_wrapped_module.weight", "lora_B._fsdp_wrapped_module.weight"),
    Names("lora_A.default._orig_mod.weight", "lora_B.default._orig_mod.weight"),
    Names("lora_layer.lora.down.weight", "lora_layer.lora.up.weight"),
)
# Other names of modules. Each is a list of substitutions in diffusers' paths.
Rename = tuple[tuple[str, str], ...]
_OUT = r"(attn|attention)\.to_out\.0$"
_COMFYUI = (
    (r"^all_x_embedder\.2-1$", "x_embedder"),
    (r"^all_final_layer\.2-1\.", "final_layer."),
)
RENAMES: dict[str, tuple[Rename, ...]] = {
    "qwen_image": ((), ((_OUT, r"\1.to_out"), (r"to_added_qkv$", "add_qkv_proj"))),
    "qwen_image_21": ((), ((_OUT, r"\1.to_out"),)),
    "z_image": (
        (),
        (*_COMFYUI, (_OUT, "attention.out")),
        (*_COMFYUI, (_OUT, "attention.out.0"), (r"attention\.qkv$", "attention.to_qkv")),
        ((_OUT, "attention.wo"), (r"feed_forward\.w2$", "feed_forward.net.2")),
        (
            (_OUT, "attention.to_out"),
            (r"^t_embedder\.mlp\.0$", "t_embedder.linear1"),
            (r"^t_embedder\.mlp\.2$", "t_embedder.linear2"),
            (r"^(all_final_layer\.2-1\.adaLN_modulation)\.1$", r"\1.0"),
        ),
    ),
}


def renamed(path: str, rename: Rename) -> str:
    """Return a path with its other names."""
    for pattern, other in rename:
        path = re.sub(pattern, other, path)
    return path


def stem(path: str, prefix: str) -> str:
    """Return a module's name behind a prefix, dotted or flat."""
    return prefix + (path.replace(".", "_") if prefix in FLAT else path)


def wrapped(path: str, template: str, suffix: str) -> str:
    """Return a tensor's name with wrappers in the middle of its path."""
    head, dot, tail = path.rpartition(".")
    if not dot:
        return template.replace("{0}.", "").replace("{0}", "").format("", tail, suffix)
    return template.format(head, tail, suffix)


class Scale(NamedTuple):
    """Where a file says alpha: in tensors of a module, and in the header."""

    suffix: str | None = None
    shape: tuple[int, ...] = ()
    dtype: torch.dtype = torch.float32
    header: str | None = None

    def tensors(self, name: str, alpha: float, rank: int) -> dict[str, Tensor]:
        """Return the tensors for a module."""
        if self.suffix is None:
            return {}
        value = alpha / rank if self.suffix == "lora_scaling" else alpha
        return {f"{name}.{self.suffix}": torch.full(self.shape, value, dtype=self.dtype)}

    def metadata(self, alpha: float, rank: int) -> dict[str, str] | None:
        """Return the metadata of the file."""
        if self.header is None:
            return None
        fields = {"r": rank, "lora_alpha": alpha}
        if self.header == "flat":
            return {"lora_rank": str(rank), "lora_alpha": str(alpha)}
        text = json.dumps({f"{self.header}{name}": value for name, value in fields.items()})
        return {"lora_adapter_metadata": text}

    @property
    def stated(self) -> bool:
        """Whether there is any; without, the factors are all."""
        return self.suffix is not None or self.header is not None


SCALES = (
    Scale(),
    Scale("alpha"),
    Scale("alpha", (1,)),
    Scale("alpha", (1, 1)),
    Scale("alpha", dtype=torch.float16),
    Scale("alpha", dtype=torch.bfloat16),
    Scale("alpha", dtype=torch.float64),
    Scale("alpha", dtype=torch.int64),
    Scale("alpha", (1,), torch.int32),
    Scale("lora_alpha"),
    Scale("lora_scaling"),
    Scale(header="transformer."),
    Scale(header=""),
    Scale(header="flat"),
)
