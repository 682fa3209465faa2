"""Ties `lora/` to models that ComfyUI runs."""
