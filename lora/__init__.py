"""LoRA files and stacks, free of ComfyUI."""
