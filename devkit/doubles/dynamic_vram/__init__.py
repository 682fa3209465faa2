"""ComfyUI's dynamic VRAM without a GPU."""
