"""LoRA files -> exact low-rank factors, for Qwen-Image and Z-Image.

Knows torch and safetensors' file format, but neither ComfyUI nor the rest of this pack.
"""
