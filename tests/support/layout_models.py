"""A small Qwen-Image with weights in the layouts that comfy-kitchen has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vivace.devkit.doubles import tiny_models as tiny

LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("TensorWiseINT8Layout", {}),
    "int8 by row": ("TensorWiseINT8Layout", {"per_channel": True}),
    "int8 rotated": ("TensorWiseINT8Layout", {"per_channel": True, "convrot": True}),
    "nvfp4": ("TensorCoreNVFP4Layout", {}),
    "mxfp8": ("TensorCoreMXFP8Layout", {}),
}


def model_of(kind: str) -> Any:
    """A small Qwen-Image with weights of a kind; a layout has those of the attention."""
    if kind == "fp16":
        model = tiny.qwen_image()
        for parameter in model.model.diffusion_model.parameters():
            parameter.data = parameter.data.half()
        return model
    if kind not in LAYOUTS:
        return tiny.qwen_image(kind)
    quant_ops = pytest.importorskip("comfy.quant_ops", reason="an older ComfyUI has no layouts")
    layout, options = LAYOUTS[kind]
    if not hasattr(quant_ops.QuantizedTensor, "requantize_from_float"):
        pytest.skip("this ComfyUI does not quantize again as it was")
    model = tiny.qwen_image("fp8 quantized")
    for block in model.model.diffusion_model.transformer_blocks:
        for name in ("to_q", "add_v_proj"):
            layer = getattr(block.attn, name)
            weight = layer.weight.to(torch.float32).dequantize().bfloat16()
            made = quant_ops.QuantizedTensor.from_float(weight, layout, **options)
            layer.weight = torch.nn.Parameter(made, requires_grad=False)
            layer.layout_type = layout
    return model
