"""A small text encoder of ComfyUI's own classes: Z-Image's, with two narrow layers."""

from __future__ import annotations

import comfy.sd
import torch
from comfy import sd1_clip
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders import llama, z_image

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


class SmallQwen3(sd1_clip.SDClipModel):
    """The encoder itself."""

    def __init__(self, device="cpu", layer="last", layer_idx=None, dtype=None, model_options=None):
        super().__init__(
            device=device,
            layer=layer,
            layer_idx=layer_idx,
            textmodel_json_config=dict(SIZES),
            dtype=dtype,
            special_tokens={"pad": 151643},
            layer_norm_hidden_state=False,
            model_class=llama.Qwen3_4B,  # pyright: ignore[reportArgumentType]
            enable_attention_masks=True,
            return_attention_masks=True,
            model_options=model_options or {},
        )


class SmallTextEncoder(sd1_clip.SD1ClipModel):
    """The encoder under the name that it has in files."""

    def __init__(self, device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            name="qwen3_4b",
            clip_model=SmallQwen3,  # pyright: ignore[reportArgumentType]
            model_options=model_options or {},
        )


def small_clip():
    """The same random weights each time."""
    clip = comfy.sd.CLIP(
        ClipTarget(z_image.ZImageTokenizer, SmallTextEncoder),
        model_options={"dtype": torch.float32},
    )
    generator = torch.Generator().manual_seed(11)
    for parameter in clip.cond_stage_model.parameters():
        if parameter.dim() < 2:
            torch.nn.init.ones_(parameter)
            continue
        values = torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5
        parameter.data.copy_(values)
    return clip
