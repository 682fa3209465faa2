"""What a node pack costs when ComfyUI starts. The standard library only."""
