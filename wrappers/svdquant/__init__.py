"""SVDQuant checkpoints as ComfyUI models."""
