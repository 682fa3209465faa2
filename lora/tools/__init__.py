"""Making LoRA files from LoRA files and checkpoints: what the command line's `lora` commands do.

Knows `lora/` and torch, but not ComfyUI. Importing the package imports nothing.
"""
