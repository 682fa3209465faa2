"""Lets ComfyUI's own loader take text encoders of three layers.

The widths that the diffusion models and the tokenizer see are the real ones.
"""

from functools import partial

from comfy.text_encoders import llama

SMALL = {"num_hidden_layers": 3, "intermediate_size": 64}
for name in ("Qwen25_7BVLI_Config", "Qwen3_4BConfig"):
    setattr(llama, name, partial(getattr(llama, name), **SMALL))

NODE_CLASS_MAPPINGS = {}
